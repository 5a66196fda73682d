//go:build ops

package systemtest

func init() { operations = true }

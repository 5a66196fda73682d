//go:build ops

package main_test

func init() { operations = true }

//go:build !linux

package inlookup

func filteredChild() {}
func unmarkedChild() {}
func accountChild()  {}

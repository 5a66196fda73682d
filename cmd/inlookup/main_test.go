package main

import (
	"os"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, 0, nil)) }

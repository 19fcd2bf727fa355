//go:build man

package main

import "github.com/skiff-run/skiff/cmd/internal/manual"

// init writes the manual and ends the process, see package manual.
func init() { manual.Main(newCommand(), "8", false) }

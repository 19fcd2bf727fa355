// Command skiff is the one command line a person types: it runs a whole cluster
// on one machine (up, down, reset) and carries kubectl.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/skiff-run/skiff/internal/daemon"
)

func main() {
	// A link named kubectl that points here behaves as kubectl.
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(kubectl(os.Args))
	}
	if len(os.Args) > 1 && os.Args[1] == "kubectl" {
		os.Exit(kubectl(append([]string{"kubectl"}, os.Args[2:]...)))
	}
	daemon.Run("skiff", func(ctx context.Context) error { return newCommand().ExecuteContext(ctx) })
}

package tracking_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/internal/tracking"
)

// TestWithoutNftablesIPTablesDoesIt on a machine that has only one of the two
// programs called iptables.
func TestWithoutNftablesIPTablesDoesIt(t *testing.T) {
	testenv.RequireRoot(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			testenv.RequireProgram(t, "iptables-"+variant)
			programs := t.TempDir()
			for _, family := range []string{"iptables", "ip6tables"} {
				target, err := exec.LookPath(family + "-" + variant)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{family, family + "-" + variant} {
					// The programs look at the name by which they are called, so it stays in the path.
					script := "#!/bin/sh\nexec " + target + " \"$@\"\n"
					if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Setenv("PATH", programs)
			inNamespace(t, func() error {
				for range 2 {
					if err := tracking.On(t.Context()); err != nil {
						return err
					}
				}
				if known, err := connectAndLookUp(); err != nil || !known {
					return fmt.Errorf("the connection is not tracked: %w", err)
				}
				if err := errors.Join(tracking.Off(t.Context()), tracking.Off(t.Context())); err != nil {
					return err
				}
				left, err := exec.Command(filepath.Join(programs, "iptables"), "-S").CombinedOutput()
				if strings.Contains(string(left), tracking.ChainName) {
					t.Errorf("left behind:\n%s", left)
				}
				return err
			})
		})
	}
}

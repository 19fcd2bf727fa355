package podworker

import (
	"os"
	"path/filepath"
	"testing"
)

func TestARemovedLogTakesItsRotatedFilesAlong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"1.log", "1.log.20260101-000000", "1.log.20260101-000001.001", "10.log", "0.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := removeLog(filepath.Join(dir, "1.log")); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "0.log" || left[1].Name() != "10.log" {
		t.Errorf("left: %v, %v", left, err)
	}
}

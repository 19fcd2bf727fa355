package fleet

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestMain(m *testing.M) {
	Janitor()
	os.Exit(m.Run())
}

// TestNothingIsLeftOfATestThatIsKilled kills another test while its fleet boots.
func TestNothingIsLeftOfATestThatIsKilled(t *testing.T) {
	Require(t)
	if err := sweep("two"); err != nil { // what there is from before the janitor's time
		t.Fatal(err)
	}
	before := computer(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command(self, "-test.run=^TestAFleetOfTwo$")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	booting := func() bool {
		found, err := filepath.Glob("/sys/fs/cgroup/*/" + Prefix + "two*/m1")
		return err == nil && len(found) > 0
	}
	// The first run on a computer makes the disk.
	testenv.Eventually(t, 10*time.Minute, booting, "the other test's machines do not boot")
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed
	testenv.Eventually(t, time.Minute, func() bool { return computer(t) == before }, "the fleet is still there")
}

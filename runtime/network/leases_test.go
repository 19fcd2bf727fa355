package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, dir string) *leases {
	t.Helper()
	l, err := openLeases(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func acquire(t *testing.T, l *leases, id, gateway string) string {
	t.Helper()
	addr, err := l.acquire(id, netip.MustParsePrefix(gateway))
	if err != nil {
		t.Fatal(err)
	}
	return addr.String()
}

func TestAddressesAreLeasedInOrderAndRestBeforeTheyAreUsedAgain(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	const gateway = "10.0.0.1/29" // leaves .2 to .6
	for _, want := range []string{"10.0.0.2", "10.0.0.3"} {
		if got := acquire(t, l, want, gateway); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := acquire(t, l, "10.0.0.2", gateway); got != "10.0.0.2" {
		t.Errorf("asked again, a pod got %s", got)
	}
	if err := l.release("10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"} {
		if got := acquire(t, l, want, gateway); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := l.acquire("one more", netip.MustParsePrefix(gateway)); !errors.Is(err, ErrNoAddress) {
		t.Errorf("of a full range: %v", err)
	}
}

func TestLeasesOutliveTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	first := acquire(t, l, "a", "10.0.0.1/24")
	second := acquire(t, l, "b", "10.0.0.1/24")
	// Killed while it wrote a third.
	if err := os.WriteFile(filepath.Join(dir, "leases", ".10.0.0.4"), []byte("c"), 0o644); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if got := acquire(t, l, "a", "10.0.0.1/24"); got != first {
		t.Errorf("got %s, want %s", got, first)
	}
	if got := acquire(t, l, "c", "10.0.0.1/24"); got == first || got == second {
		t.Errorf("%s is leased twice", got)
	}
}

func TestAddressesOfDeadPodsAreReclaimed(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	acquire(t, l, "alive", "10.0.0.1/24")
	acquire(t, l, "dead", "10.0.0.1/24")
	acquire(t, l, "dead", "fd00::1/64")
	if count, err := l.reclaim(map[string]bool{"alive": true}); err != nil || count != 2 {
		t.Errorf("reclaimed %d: %v", count, err)
	}
	if len(l.owner) != 1 {
		t.Errorf("left: %v", l.owner)
	}
}

func TestADamagedLeaseIsAnErrorThatNamesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "leases", "nonsense"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openLeases(dir); err == nil {
		t.Error("no error")
	}
}

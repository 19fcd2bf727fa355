package usage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLinksThatLeadSomewhere(t *testing.T) {
	t.Parallel()
	path := file(t, `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
  ens3: 100 10 1 2 0 0 0 0 200 20 3 4 0 0 0 0
sk0123456789a: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0
skiff0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0
veth12: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0
`)
	want := []link{{"ens3", 100, 10, 1, 2, 200, 20, 3, 4}, {"skiff0", 7, 1, 0, 0, 8, 1, 0, 0}}
	if diff := cmp.Diff(want, links(path), cmp.AllowUnexported(link{})); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	routes := file(t, "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\nens4\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\nens3\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n")
	if got := defaultLink(routes); got != "ens3" {
		t.Errorf("the link of the default route: %q", got)
	}
}

func TestProcessorTimeIsThatOfBusyOnes(t *testing.T) {
	t.Parallel()
	// user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second
	got, err := procCPU(file(t, "cpu  100 1 50 9000 700 2 3 4 60 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
	if want := uint64(160 * 1e7); err != nil || got != want {
		t.Errorf("%d, %v; want %d", got, err, want)
	}
}

func TestProcessorsAreCounted(t *testing.T) {
	t.Parallel()
	one := func(cpu, chip, core string) string {
		return "processor\t: " + cpu + "\nphysical id\t: " + chip + "\ncore id\t: " + core + "\n\n"
	}
	cores, physical, sockets := processors(file(t, one("0", "0", "0")+one("1", "0", "0")+one("2", "0", "1")+one("3", "1", "0")))
	if cores != 4 || physical != 3 || sockets != 2 {
		t.Errorf("%d threads, %d cores, %d sockets", cores, physical, sockets)
	}
}

func TestASizeCountsWhatIsOnTheDiskOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "a"), make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "sub", "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	bytes, inodes := treeSize(dir)
	if inodes != 3 || bytes < 100_000 || bytes > 150_000 {
		t.Errorf("%d bytes in %d inodes", bytes, inodes)
	}
	if bytes, inodes := treeSize(filepath.Join(dir, "none")); bytes != 0 || inodes != 0 {
		t.Errorf("a folder that is not there: %d bytes in %d inodes", bytes, inodes)
	}
}

func TestVolumesAreToldByTheirClaims(t *testing.T) {
	t.Parallel()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "n"}}
	for name, source := range map[string]v1.VolumeSource{
		"n/data":    {PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}},
		"n/web-tmp": {Ephemeral: &v1.EphemeralVolumeSource{}},
		"":          {EmptyDir: &v1.EmptyDirVolumeSource{}},
	} {
		got := ""
		if ref := claim(pod, &v1.Volume{Name: "tmp", VolumeSource: source}); ref != nil {
			got = ref.Namespace + "/" + ref.Name
		}
		if got != name {
			t.Errorf("claim %q, want %q", got, name)
		}
	}
}

package proof

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// virtualSettings are how virtual machines are set up otherwise: by IPVS, which
// only their kernel has, and with patience.
const virtualSettings = `
skiff_proxy_config: {mode: ipvs}
skiff_ready_timeout: 600
skiff_check: false # their disks are as slow as their processors
skiff_time_tolerance: 240
`

// fromZeroVirtual has Ansible build the cluster.
func fromZeroVirtual(t *testing.T, f *fleet.Fleet, packages []string) {
	t.Helper()
	folder := packagesFolder(f)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range packages {
		if err := os.Symlink(file, filepath.Join(folder, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	settings := filepath.Join(f.Folder, "settings.yml")
	if err := os.WriteFile(settings, []byte(virtualSettings+"skiff_packages_dir: "+folder+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Only there containers have profiles; elsewhere the agent says that they have none.
	on(t, f.Machines[0], "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq apparmor >/dev/null")
	began := time.Now()
	if _, _, err := f.Playbook(t.Context(), "site.yml", "-e", "@"+settings); err != nil {
		t.Fatal(err)
	}
	t.Logf("from zero to three Ready nodes in %s", time.Since(began).Round(time.Second))
}

// visit is what the pod of each machine does in the walk: it asks every web pod,
// the service by its address and by its name.
const visit = `for each in %s; do wget -q -O- http://$each:8080 || exit 1; echo; done
wget -q -O- http://%s && wget -q -O- http://web.default.svc.cluster.local && nslookup kubernetes.default.svc.cluster.local >/dev/null`

// testEssentials is the walk where every command takes its time: a Deployment on
// three machines, from pod to pod, services from every pod and machine, names,
// logs and exec.
func testEssentials(t *testing.T, f *fleet.Fleet) {
	remove(t, f, "deployment/web", "service/web")
	kubectl(t, f, "create", "deployment", "web", "--image=skiff/web:1", "--replicas=3")
	kubectl(t, f, "create", "service", "nodeport", "web", "--tcp=80:8080", fmt.Sprintf("--node-port=%d", webPort))
	boxes(t, f)
	kubectl(t, f, "rollout", "status", "deployment/web", "--timeout=240s")
	if got := nodesOf(t, f, "app=web"); len(got) != len(f.Machines) {
		t.Errorf("the deployment runs on %v", got)
	}
	addresses := kubectl(t, f, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}")
	service := kubectl(t, f, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	want := len(strings.Fields(addresses)) + 2
	for i, m := range f.Machines {
		t.Run(m.Name, func(t *testing.T) {
			pod := boxOn(m)
			// Through another machine's API each time.
			api := via(f.Machines[(i+1)%len(f.Machines)])
			said := says(t, f, 2*time.Minute, func(said string) bool { return strings.Count(said, "web-") >= want },
				api, "exec", pod, "--", "sh", "-c", fmt.Sprintf(visit, addresses, service))
			if t.Failed() {
				t.Logf("the pod on %s heard:\n%s", m.Name, said)
			}
			if said := kubectl(t, f, api, "logs", pod); strings.TrimSpace(said) != "I am on "+m.Name {
				t.Errorf("the log says %q", said)
			}
			// TCP  0A600001:0050 rr, and a line with an arrow for each pod.
			count := fmt.Sprintf(`awk -v service=%X:0050 '/^[A-Z]/ {ours = $2 == service} ours && $1 == "->" && $2 ~ /:1F90$/ {pods++} END {print pods + 0}' /proc/net/ip_vs`,
				netip.MustParseAddr(service).AsSlice())
			if said := on(t, m, count); said != "3" {
				t.Errorf("IPVS on %s leads from the service to %s pods", m.Name, said)
			}
			if said := on(t, m, fmt.Sprintf("python3 -c \"import urllib.request; print(urllib.request.urlopen('http://%s', timeout=20).read().decode())\"", service)); !strings.HasPrefix(said, "web-") {
				t.Errorf("the service says to %s %q", m.Name, said)
			}
			said2, err := f.Command(t.Context(), "curl", "-sS", "-m", "20", fmt.Sprintf("http://%s:%d", m.Address, webPort)).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(said2), "web-") {
				t.Errorf("the node port of %s says %q: %v", m.Name, said2, err)
			}
		})
	}
}

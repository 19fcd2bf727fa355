package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func complete[C any, P validated[C]](t *testing.T, kind string, configuration P, file string, args ...string) error {
	t.Helper()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags := AddFlags(set, kind, configuration)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	if err := set.Parse(args); err != nil {
		return err
	}
	return flags.Complete()
}

func TestDefaultsAreValid(t *testing.T) {
	for kind, err := range map[string]error{
		ControlKind: complete(t, ControlKind, DefaultControl(), ""), AgentKind: complete(t, AgentKind, DefaultAgent(), ""), ProxyKind: complete(t, ProxyKind, DefaultProxy(), ""),
	} {
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestFlagsWinOverTheFileAndTheFileOverDefaults(t *testing.T) {
	c := DefaultControl()
	file := "apiVersion: skiff.dev/v1\nkind: ControlConfiguration\nport: 7000\nserviceCIDR: 10.97.0.0/16\n"
	if err := complete(t, ControlKind, c, file, "--port", "7443", "--node-cidr-mask-size=25"); err != nil {
		t.Fatal(err)
	}
	if c.Port != 7443 || c.ServiceCIDR != "10.97.0.0/16" || c.NodeCIDRMaskSize != 25 || c.PodCIDR != "10.244.0.0/16" {
		t.Errorf("got %+v", c)
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	const head = "apiVersion: skiff.dev/v1\nkind: AgentConfiguration\n"
	for name, tc := range map[string]struct {
		file string
		args []string
		want []string
	}{
		"an unknown field names its line":        {file: head + "maxPod: 3\n", want: []string{"line 3", "maxPod"}},
		"a repeated field":                       {file: head + "port: 1\nport: 2\n", want: []string{"line 4", "port"}},
		"a text where a number belongs":          {file: head + "maxPods: many\n", want: []string{"line 3", "many"}},
		"a threshold of nothing known":           {file: head + "evictionHard: {disk.free: 1Gi}\n", want: []string{"evictionHard[disk.free]", "nodefs.available"}},
		"a threshold beyond everything":          {file: head + "evictionHard: {nodefs.available: 110%}\n", want: []string{"evictionHard[nodefs.available]", "from 0% to 100%"}},
		"a soft threshold without patience":      {args: []string{"--eviction-soft=memory.available=1Gi"}, want: []string{"evictionSoftGracePeriod[memory.available]", "grace period must be specified"}},
		"a reservation of something else":        {file: head + "kubeReserved: {pods: 3}\n", want: []string{"kubeReserved[pods]", "ephemeral-storage"}},
		"enforcement on a cgroup without a name": {file: head + "enforceNodeAllocatable: [pods, system-reserved]\n", want: []string{"systemReservedCgroup"}},
		"exclusive processors without a rest":    {args: []string{"--cpu-manager-policy=static"}, want: []string{"reservedSystemCPUs"}},
		"no processes at all":                    {args: []string{"--pod-pids-limit=0"}, want: []string{"podPidsLimit", "-1"}},
		"a missing version":                      {file: "kind: AgentConfiguration\n", want: []string{"apiVersion is missing", "skiff.dev/v1"}},
		"a version of the future":                {file: "apiVersion: skiff.dev/v9\nkind: AgentConfiguration\n", want: []string{"skiff.dev/v9"}},
		"the kind of another daemon":             {file: "apiVersion: skiff.dev/v1\nkind: ProxyConfiguration\n", want: []string{"ProxyConfiguration", "AgentConfiguration"}},
		"two documents":                          {file: head + "---\n" + head, want: []string{"more than one document"}},
		"a port beyond the range":                {file: head + "port: 70000\n", want: []string{"port", "1 to 65535"}},
		"a relative path":                        {file: head + "rootDir: var/lib\n", want: []string{"rootDir", "absolute"}},
		"a bad driver by flag":                   {args: []string{"--cgroup-driver=crun"}, want: []string{"cgroupDriver", "\"systemd\""}},
		"a control address without a port":       {args: []string{"--control-addresses=host1"}, want: []string{"controlAddresses[0]", "host:port"}},
		"a node name that is no DNS name":        {args: []string{"--node-name=Host_1"}, want: []string{"nodeName"}},
		"a sysctl of the whole node":             {args: []string{"--allowed-unsafe-sysctls=vm.swappiness"}, want: []string{"allowedUnsafeSysctls[0]", "namespaced"}},
		"a sysctl that is none":                  {args: []string{"--allowed-unsafe-sysctls=net.*.x"}, want: []string{"allowedUnsafeSysctls[0]", "sysctl"}},
		"a link name longer than the kernel has": {args: []string{"--bridge=averyveryverylongname"}, want: []string{"bridge", "15"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := complete(t, AgentKind, DefaultAgent(), tc.file, tc.args...)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not mention %q", err, want)
				}
			}
		})
	}
}

func TestRangesThatOverlapAreRefused(t *testing.T) {
	c := DefaultControl()
	err := complete(t, ControlKind, c, "", "--service-cidr=10.244.0.0/16")
	if err == nil || !strings.Contains(err.Error(), "must not overlap serviceCIDR") {
		t.Errorf("got %v", err)
	}
	if err := complete(t, ControlKind, DefaultControl(), "", "--pod-cidr=10.244.1.0/16"); err == nil || !strings.Contains(err.Error(), "write 10.244.0.0/16") {
		t.Errorf("got %v", err)
	}
}

func TestFlagNames(t *testing.T) {
	for camel, want := range map[string]string{"dataDir": "data-dir", "nodeCIDRMaskSize": "node-cidr-mask-size", "clientCAFile": "client-ca-file", "nodeIP": "node-ip", "tlsCertFile": "tls-cert-file", "clusterDNS": "cluster-dns", "podCIDR": "pod-cidr"} {
		if got := kebab(camel); got != want {
			t.Errorf("%s: got %s, want %s", camel, got, want)
		}
	}
}

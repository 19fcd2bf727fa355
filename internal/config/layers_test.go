package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// agentFlags writes files below a folder of the test's own, parses the arguments,
// and returns what reads the configuration in agent.yaml there.
func agentFlags(t *testing.T, files map[string]string, args ...string) (*Flags[Agent], string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		place := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte("apiVersion: skiff.dev/v1\nkind: AgentConfiguration\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags := AddFlags(set, AgentKind, DefaultAgent())
	if err := set.Parse(append([]string{"--config", filepath.Join(dir, "agent.yaml")}, args...)); err != nil {
		t.Fatal(err)
	}
	return flags, dir
}

func TestLaterLayersWin(t *testing.T) {
	// No t.Parallel: it sets environment variables.
	t.Setenv("SKIFF_AGENT_MAX_PODS", "40")
	t.Setenv("SKIFF_AGENT_CLUSTER_DNS", "10.0.0.1,10.0.0.2")
	t.Setenv("SKIFF_AGENT_LOG_LEVEL", "warn")
	t.Setenv("SKIFF_AGENT_BRIDGE", "") // as an EnvironmentFile that was only half filled in
	t.Setenv("SKIFF_AGENT_MAXPODS", "50")
	t.Setenv("SKIFF_PROXY_MODE", "ipvs")
	flags, dir := agentFlags(t, map[string]string{
		"agent.yaml":                     "maxPods: 10\nbridge: file0\nclusterDomain: one.example\nnodeLabels: {a: file, b: file, c: file}\ncontrolAddresses: [\"a:1\", \"b:1\"]\nmemorySwap: {swapBehavior: LimitedSwap}\n",
		"agent.d/10-first.yaml":          "maxPods: 20\nclusterDomain: two.example\nnodeLabels: {b: first, d: first}\ncontrolAddresses: [\"c:1\"]\n",
		"agent.d/50-second.yaml":         "clusterDomain: three.example\nnodeLabels: {c: null, d: second}\nlogLevel: error\n",
		"agent.d/60-copy.yaml~":          "maxPods: 1\n",
		"agent.d/.70-hidden.yaml":        "maxPods: 2\n",
		"agent.d/80-old.yaml.dpkg-old":   "maxPods: 3\n",
		"agent.d/README":                 "nothing",
		"proxy.d/10-of-another.yaml":     "maxPods: 4\n",
		"agent.yaml.d/10-elsewhere.yaml": "maxPods: 5\n",
	}, "--log-level=debug")
	c, err := flags.Read()
	if err != nil {
		t.Fatal(err)
	}
	if c.LogLevel != "debug" || c.MaxPods != 40 || c.Bridge != "file0" || c.ClusterDomain != "three.example" || c.Resources.MemorySwap.SwapBehavior != "LimitedSwap" {
		t.Errorf("log level %s, %d pods, bridge %s, domain %s, swap %v", c.LogLevel, c.MaxPods, c.Bridge, c.ClusterDomain, c.Resources.MemorySwap)
	}
	if want := map[string]string{"a": "file", "b": "first", "d": "second"}; !maps.Equal(c.NodeLabels, want) {
		t.Errorf("labels %v, want %v", c.NodeLabels, want)
	}
	if !slices.Equal(c.ControlAddresses, []string{"c:1"}) || !slices.Equal(c.ClusterDNS, []string{"10.0.0.1", "10.0.0.2"}) {
		t.Errorf("lists are replaced: got %v and %v", c.ControlAddresses, c.ClusterDNS)
	}
	if unknown := flags.unknown; !slices.Equal(unknown, []string{"SKIFF_AGENT_MAXPODS"}) {
		t.Errorf("unknown variables %v", unknown)
	}
	if want := []string{filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "agent.d/10-first.yaml"), filepath.Join(dir, "agent.d/50-second.yaml")}; !slices.Equal(flags.files, want) {
		t.Errorf("files %v, want %v", flags.files, want)
	}
}

func TestEveryReadIsAnew(t *testing.T) {
	t.Parallel()
	flags, dir := agentFlags(t, map[string]string{"agent.yaml": "nodeLabels: {a: \"1\"}\n", "agent.d/1.yaml": "nodeLabels: {b: \"1\"}\nmaxPods: 7\n"}, "--cluster-dns=10.0.0.1")
	first, err := flags.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "agent.d/1.yaml")); err != nil {
		t.Fatal(err)
	}
	second, err := flags.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(first.NodeLabels) != 2 || len(second.NodeLabels) != 1 || second.MaxPods != 110 || !slices.Equal(second.ClusterDNS, []string{"10.0.0.1"}) {
		t.Errorf("first %v, then %v, %d pods, %v", first.NodeLabels, second.NodeLabels, second.MaxPods, second.ClusterDNS)
	}
	if got, want := Differences(first, second), []string{"nodeLabels", "maxPods"}; !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v", got, want)
	}
}

func TestBadLayersAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		files    map[string]string
		variable string
		want     []string
	}{
		"an unknown field of a drop-in":    {files: map[string]string{"agent.d/50-a.yaml": "maxPod: 3\n"}, want: []string{"agent.d/50-a.yaml", "line 3", "maxPod"}},
		"a drop-in that would not be read": {files: map[string]string{"agent.d/50-a.yml": ""}, want: []string{"50-a.yml", "rename"}},
		"a drop-in of another kind":        {files: map[string]string{"agent.d/50-a.yaml": "kind: ProxyConfiguration\n"}, want: []string{"50-a.yaml", "kind"}},
		"a value that cannot be used":      {files: map[string]string{"agent.d/50-a.yaml": "maxPods: 0\n"}, want: []string{"maxPods", "at least 1"}},
		"a variable that is no number":     {variable: "many", want: []string{"SKIFF_AGENT_MAX_PODS", "many"}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.variable != "" {
				t.Setenv("SKIFF_AGENT_MAX_PODS", tc.variable)
			}
			files := map[string]string{"agent.yaml": ""}
			maps.Copy(files, tc.files)
			flags, _ := agentFlags(t, files)
			err := flags.Complete()
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

func TestTheFileMayBeNamedByTheEnvironment(t *testing.T) {
	place := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(place, []byte("apiVersion: skiff.dev/v1\nkind: ProxyConfiguration\nmode: ipvs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SKIFF_PROXY_CONFIG", place)
	c := DefaultProxy()
	if err := complete(t, ProxyKind, c, ""); err != nil || c.Mode != "ipvs" {
		t.Errorf("mode %s, %v", c.Mode, err)
	}
}

func TestEveryFieldHasOneNameEverywhere(t *testing.T) {
	t.Parallel()
	flags, variables := map[string]bool{}, map[string]bool{}
	eachField(reflect.ValueOf(DefaultProxy()).Elem(), func(name string, _ reflect.StructField, _ reflect.Value) {
		flags[flagName(name)], variables[variable(ProxyKind, flagName(name))] = true, true
	})
	if !flags["dns-stub-domains"] || !variables["SKIFF_PROXY_DNS_STUB_DOMAINS"] || !flags["iptables-localhost-node-ports"] {
		t.Errorf("flags %v, variables %v", flags, variables)
	}
}

func TestACloneSharesNothing(t *testing.T) {
	t.Parallel()
	c := DefaultAgent()
	c.NodeLabels, c.ShutdownGracePeriodByPodPriority = map[string]string{"a": "1"}, []ShutdownPriority{{Priority: 7, ShutdownGracePeriodSeconds: 8}}
	c.RuntimeHandlers = map[string]RuntimeHandler{"kata": {Type: "io.containerd.kata.v2"}}
	clone := Clone(c)
	if different := Differences(c, clone); len(different) > 0 {
		t.Errorf("a clone differs in %v", different)
	}
	clone.NodeLabels["b"], clone.ClusterDNS[0] = "2", "192.0.2.1"
	if len(c.NodeLabels) != 1 || c.ClusterDNS[0] != "10.96.0.10" {
		t.Errorf("the original changed with its clone: %v %v", c.NodeLabels, c.ClusterDNS)
	}
}

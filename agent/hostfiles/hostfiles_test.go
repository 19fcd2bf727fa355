package hostfiles

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	want := `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
10.0.0.1	web.sub.ns.svc.cluster.local	web

# Entries added by HostAliases.
192.0.2.1	a	b
`
	pod := &v1.Pod{Spec: v1.PodSpec{Hostname: "web", Subdomain: "sub"}}
	pod.Namespace = "ns"
	hostname, domain := Hostname(pod, "cluster.local")
	if got := string(Hosts([]string{"10.0.0.1"}, hostname, domain, []v1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a", "b"}}})); got != want {
		t.Errorf("got %q", got)
	}
}

func TestLongPodNamesAreCutForTheKernel(t *testing.T) {
	t.Parallel()
	pod := &v1.Pod{}
	pod.Name = strings.Repeat("a", 62) + "-bcd"
	if hostname, _ := Hostname(pod, "x"); hostname != strings.Repeat("a", 62) {
		t.Errorf("host name %q", hostname)
	}
}

func TestPodDNS(t *testing.T) {
	t.Parallel()
	r := &Resolver{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Host: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com"}, Options: []string{"edns0"}}}
	value := "2"
	for name, test := range map[string]struct {
		spec v1.PodSpec
		want string
	}{
		"ClusterFirst asks the cluster":                      {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst}, "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com | ndots:5"},
		"ClusterFirst on the node's network asks the node's": {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, HostNetwork: true}, "192.0.2.53 | example.com | edns0"},
		"ClusterFirstWithHostNet asks the cluster":           {v1.PodSpec{DNSPolicy: v1.DNSClusterFirstWithHostNet, HostNetwork: true}, "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com | ndots:5"},
		"Default asks the node's":                            {v1.PodSpec{DNSPolicy: v1.DNSDefault}, "192.0.2.53 | example.com | edns0"},
		"None takes what the pod says": {v1.PodSpec{DNSPolicy: v1.DNSNone, DNSConfig: &v1.PodDNSConfig{
			Nameservers: []string{"1.1.1.1"}, Searches: []string{"x"}, Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: &value}}}}, "1.1.1.1 | x | ndots:2"},
		"the pod's options replace the cluster's": {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, DNSConfig: &v1.PodDNSConfig{Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: &value}, {Name: "rotate"}}}},
			"10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com | ndots:2 rotate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &v1.Pod{Spec: test.spec}
			pod.Namespace = "ns"
			c, _ := r.PodDNS(pod)
			if got := strings.Join(c.Servers, " ") + " | " + strings.Join(c.Searches, " ") + " | " + strings.Join(c.Options, " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	t.Parallel()
	c, err := ParseResolvConf(strings.NewReader("# c\nnameserver 192.0.2.1\nsearch a. b\noptions ndots:2 edns0\nnameserver 192.0.2.2 ; x\n"))
	if err != nil || len(c.Servers) != 2 || strings.Join(c.Searches, ",") != "a,b" || strings.Join(c.Options, ",") != "ndots:2,edns0" {
		t.Errorf("%v, %v", c, err)
	}
}

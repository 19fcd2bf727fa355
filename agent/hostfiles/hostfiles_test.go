package hostfiles

import (
	"slices"
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

func TestWhatNoResolverReadsIsLeftOutAndTold(t *testing.T) {
	t.Parallel()
	pod := &v1.Pod{}
	pod.Name, pod.Namespace, pod.UID = "p", "ns", "u"
	pod.Spec.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3"}, Searches: []string{strings.Repeat("a.", 127) + "b", "ok"}}
	c, warnings := (&Resolver{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"}).PodDNS(pod)
	if len(c.Servers) != 3 || strings.Join(c.Searches, " ") != "ns.svc.cluster.local svc.cluster.local cluster.local ok" {
		t.Errorf("config %v", c)
	}
	want := []Warning{
		{"DNSConfigForming", "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.96.0.10 1.1.1.1 1.1.1.2"},
		{"DNSConfigForming", "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ns.svc.cluster.local svc.cluster.local cluster.local ok"},
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings %q", warnings)
	}
	pod.Spec.DNSConfig = nil
	c, warnings = (&Resolver{Host: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}}}).PodDNS(pod)
	if len(c.Servers) != 1 || c.Servers[0] != "192.0.2.53" || len(warnings) != 1 || warnings[0].Reason != "MissingClusterDNS" {
		t.Errorf("without cluster DNS: %v, %q", c, warnings)
	}
}

func TestTheKernelsHostname(t *testing.T) {
	t.Parallel()
	yes, override := true, strings.Repeat("a", 60)+".example.com"
	for name, test := range map[string]struct {
		spec      v1.PodSpec
		want, err string
	}{
		"the pod's name":                 {v1.PodSpec{}, "web-0", ""},
		"its own":                        {v1.PodSpec{Hostname: "db"}, "db", ""},
		"a domain is not part of it":     {v1.PodSpec{Hostname: "db", Subdomain: "sets"}, "db", ""},
		"unless asked for":               {v1.PodSpec{Hostname: "db", Subdomain: "sets", SetHostnameAsFQDN: &yes}, "db.sets.ns.svc.cluster.local", ""},
		"without a domain there is none": {v1.PodSpec{Hostname: "db", SetHostnameAsFQDN: &yes}, "db", ""},
		"an override wins, and is cut":   {v1.PodSpec{Hostname: "db", Subdomain: "sets", SetHostnameAsFQDN: nil, HostnameOverride: &override}, strings.Repeat("a", 60) + ".ex", ""},
		"a full name that is too long": {v1.PodSpec{Hostname: strings.Repeat("d", 40), Subdomain: "sets", SetHostnameAsFQDN: &yes}, "",
			"failed to construct FQDN from pod hostname and cluster domain, FQDN " + strings.Repeat("d", 40) + ".sets.ns.svc.cluster.local is too long (64 characters is the max, 66 characters requested)"},
		"a wrong name": {v1.PodSpec{Hostname: "A_b"}, "", `pod Hostname "A_b" is not a valid DNS label: `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &v1.Pod{Spec: test.spec}
			pod.Name, pod.Namespace = "web-0", "ns"
			got, err := KernelHostname(pod, "cluster.local")
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("got %q, %v", got, err)
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

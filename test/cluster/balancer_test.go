package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// TestAddressesOfLoadBalancersAndPolicies: a client on the machines' network
// reaches a service by an address of the pool, which moves when the machine that
// announces it dies; and policies close and open pods.
func TestAddressesOfLoadBalancersAndPolicies(t *testing.T) {
	f := NewFleet(t, "skiff-balance")
	ctx := t.Context()
	for _, name := range []string{"host1", "worker1", "worker2"} {
		if _, err := f.Add(name); err != nil {
			t.Fatal(err)
		}
	}
	first := f.Hosts[0]
	address := host.DefaultSubnet.Addr().As4()
	address[3] = 200
	at := net.IP(address[:]).String()
	if err := first.WriteFile("/etc/skiff/control.yaml", fmt.Appendf(nil, "apiVersion: skiff.dev/v1\nkind: ControlConfiguration\nloadBalancerPool: [%s-%s]\n", at, at)); err != nil {
		t.Fatal(err)
	}
	f.must(f.Found(ctx, first))
	for _, h := range f.Hosts[1:] {
		f.must(f.Join(ctx, h, first, fleet.Worker))
	}
	f.eventually(30*time.Second, first, func(said string) bool { return strings.Count(said, " Ready ") == 3 }, "get", "nodes", "--no-headers")
	// The only API server, and the pod, are on the first: it stays.
	f.kubectl(first, "label", "node", first.Name, "node.kubernetes.io/exclude-from-external-load-balancers=")
	f.kubectl(first, "run", "web", "--image=skiff/web", "--labels=app=web", "--overrides", fmt.Sprintf(`{"spec":{"nodeName":%q}}`, first.Name))
	f.kubectl(first, "run", "probe", "--image=busybox", "--labels=app=probe", "--overrides", `{"spec":{"nodeName":"worker1"}}`, "--", "sleep", "3600")
	f.kubectl(first, "wait", "--for=condition=Ready", "pod/web", "pod/probe", "--timeout=90s")
	f.kubectl(first, "expose", "pod", "web", "--type=LoadBalancer", "--port=80", "--target-port=8080")
	f.eventually(20*time.Second, first, func(said string) bool { return said == at }, "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")

	client := &http.Client{Timeout: 250 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return f.Dial(ctx, network, address)
	}}}
	answers := func() bool {
		response, err := client.Get("http://" + at)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return err == nil && strings.HasPrefix(string(body), "web")
	}
	testenv.Eventually(t, 30*time.Second, answers, "the service does not answer at %s", at)

	t.Run("policies close and open pods", func(t *testing.T) {
		f := f.with(t)
		ask := []string{"exec", "probe", "--", "timeout", "3", "wget", "-q", "-O-", "http://web"}
		f.eventually(20*time.Second, first, func(said string) bool { return strings.HasPrefix(said, "web") }, ask...)
		apply := func(rules string) {
			if err := first.WriteFile("/etc/skiff/policy.yaml", []byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n  podSelector: {matchLabels: {app: web}}\n  ingress: "+rules+"\n")); err != nil {
				t.Fatal(err)
			}
			f.kubectl(first, "apply", "-f", "/etc/skiff/policy.yaml")
		}
		apply("[]")
		testenv.Eventually(t, 20*time.Second, func() bool { _, err := f.try(first, ask...); return err != nil }, "the policy does not close the pod")
		testenv.Eventually(t, 20*time.Second, func() bool { return !answers() }, "the policy does not close the pod to the outside")
		apply("[{from: [{podSelector: {matchLabels: {app: probe}}}], ports: [{port: 8080}]}]")
		f.eventually(20*time.Second, first, func(said string) bool { return strings.HasPrefix(said, "web") }, ask...)
		if answers() {
			t.Error("the policy opens the pod to everybody")
		}
		f.kubectl(first, "delete", "networkpolicy", "web")
		testenv.Eventually(t, 20*time.Second, answers, "without the policy the pod is closed")
	})

	t.Run("the machine that announces it dies", func(t *testing.T) {
		f := f.with(t)
		holder := f.kubectl(first, "get", "lease", "-n", "kube-public", "load-balancer-"+at, "-o", "jsonpath={.spec.holderIdentity}")
		h := f.Host(holder)
		if h == nil || h == first {
			t.Fatalf("%q announces the address", holder)
		}
		if err := f.Unplug(h); err != nil {
			t.Fatal(err)
		}
		died := time.Now()
		testenv.Eventually(t, 30*time.Second, func() bool { return !answers() || time.Since(died) > 3*time.Second }, "nothing happens")
		testenv.Eventually(t, 30*time.Second, answers, "the service does not answer again")
		t.Logf("answers again after %s", time.Since(died).Round(10*time.Millisecond))
		if now := f.kubectl(first, "get", "lease", "-n", "kube-public", "load-balancer-"+at, "-o", "jsonpath={.spec.holderIdentity}"); now == holder || now == first.Name {
			t.Errorf("%s announces it", now)
		}
	})
	f.kubectl(first, "delete", "service", "web", "--timeout=30s")
	f.eventually(20*time.Second, first, func(said string) bool { return !strings.Contains(said, "load-balancer-"+at) }, "get", "leases", "-n", "kube-public", "-o", "name")
}

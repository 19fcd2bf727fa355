package healthcheck_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/proxy/healthcheck"
	"github.com/skiff-run/skiff/proxy/table"
)

// freePort is a TCP port of loopback that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestAnswersOfKubeProxy(t *testing.T) {
	t.Parallel()
	healthy := true
	s := healthcheck.New(func() bool { return healthy })
	defer s.Close()
	check := table.HealthCheck{Service: types.NamespacedName{Namespace: "default", Name: "web"}, Port: freePort(t), LocalEndpoints: 2}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	get := func() (*http.Response, string) {
		t.Helper()
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", check.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	for _, tc := range []struct {
		endpoints int
		healthy   bool
		code      int
	}{{2, true, 200}, {0, true, 503}, {2, false, 503}, {1, true, 200}} {
		check.LocalEndpoints, healthy = tc.endpoints, tc.healthy
		if err := s.Sync([]table.HealthCheck{check}, loopback); err != nil {
			t.Fatal(err)
		}
		response, body := get()
		want := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}\n", tc.endpoints, tc.healthy)
		if response.StatusCode != tc.code || body != want || response.Header.Get("X-Load-Balancing-Endpoint-Weight") != fmt.Sprint(tc.endpoints) || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%+v: got %d %v %s", tc, response.StatusCode, response.Header, body)
		}
	}
	if err := s.Sync(nil, loopback); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", check.Port)); err == nil {
		t.Error("the port is still served after its service went")
	}
}

func TestAPortThatSomebodyElseHasStopsNoOtherCheck(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := healthcheck.New(func() bool { return true })
	defer s.Close()
	free := freePort(t)
	err = s.Sync([]table.HealthCheck{{Port: uint16(taken.Addr().(*net.TCPAddr).Port)}, {Port: free, LocalEndpoints: 1}}, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	if err == nil {
		t.Error("no error for the port that is taken")
	}
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", free))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("got %s", response.Status)
	}
}

package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// counting is an authenticator that counts how often it is asked.
type counting struct {
	asked int
	err   error
}

func (c *counting) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	c.asked++
	return &authenticator.Response{User: &user.DefaultInfo{Name: "jane"}}, c.err == nil, c.err
}

func connection(ends time.Duration) *tls.ConnectionState {
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(ends)}}}
}

func TestAClientCertificateIsVerifiedOnceInAWhilePerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verify := &counting{}
		c := newCertificateAuthenticator(verify)
		ask := func(state *tls.ConnectionState, want int) {
			t.Helper()
			response, ok, err := c.AuthenticateRequest(&http.Request{TLS: state})
			if ok != (verify.err == nil) || !errors.Is(err, verify.err) || (ok && response.User.GetName() != "jane") {
				t.Errorf("answer %v %t %v", response, ok, err)
			}
			if verify.asked != want {
				t.Errorf("verified %d times, want %d", verify.asked, want)
			}
		}
		one, other, short := connection(time.Hour), connection(time.Hour), connection(time.Second)
		ask(one, 1)
		ask(one, 1)
		ask(other, 2)
		ask(short, 3)
		ask(short, 3)
		time.Sleep(2 * time.Second)
		ask(short, 4) // its certificate has ended
		ask(one, 4)
		time.Sleep(certificateTTL)
		verify.err = errors.New("revoked")
		ask(one, 5)
		ask(one, 5)
		if _, ok, err := c.AuthenticateRequest(&http.Request{TLS: &tls.ConnectionState{}}); ok || err != nil || verify.asked != 5 {
			t.Errorf("without a certificate: %t %v", ok, err)
		}
	})
}

func TestOnlyRequestsThatNameAUserAreTakenForAnotherServers(t *testing.T) {
	t.Parallel()
	verify := &counting{}
	h := headerAuthenticator{verify, func() []string { return []string{"X-Remote-User"} }}
	if _, ok, err := h.AuthenticateRequest(&http.Request{Header: http.Header{}}); ok || err != nil || verify.asked != 0 {
		t.Errorf("a request without the header: %t %v, verified %d times", ok, err, verify.asked)
	}
	if _, ok, err := h.AuthenticateRequest(&http.Request{Header: http.Header{"X-Remote-User": {"jane"}}}); !ok || err != nil {
		t.Errorf("a request with the header: %t %v", ok, err)
	}
}

// TestRequestsOfAConnectionShareItsState is what certificateAuthenticator
// relies on, of the very servers that the API server uses.
func TestRequestsOfAConnectionShareItsState(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var mu sync.Mutex
		var states []*tls.ConnectionState
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.Proto != version {
				t.Errorf("protocol %s", r.Proto)
			}
			states = append(states, r.TLS)
		}))
		server.EnableHTTP2 = version == "HTTP/2.0"
		if server.EnableHTTP2 {
			if err := http2.ConfigureServer(server.Config, &http2.Server{}); err != nil {
				t.Fatal(err)
			}
			server.TLS = server.Config.TLSConfig
		}
		server.StartTLS()
		defer server.Close()
		for range 2 {
			response, err := server.Client().Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
		}
		if len(states) != 2 || states[0] != states[1] || states[0] == nil {
			t.Errorf("%s: states %v", version, states)
		}
	}
}

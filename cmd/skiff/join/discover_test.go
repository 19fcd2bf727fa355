package join

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

const goodToken = "abcdef.0123456789abcdef"

// fakeCluster answers discovery as an API server does.
type fakeCluster struct {
	authority *pki.Authority
	server    *httptest.Server
	// shown is the authority cluster-info names.
	shown []byte
	clock func() time.Time
	// secrets are the values of Authorization seen with unverified requests.
	anonymous []string
}

// newFakeCluster serves with a certificate that signer has signed.
func newFakeCluster(t *testing.T, signer string) *fakeCluster {
	t.Helper()
	dir := t.TempDir()
	authority, err := pki.EnsureAuthority(dir, "ca", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	signing := authority
	if signer != "ca" {
		if signing, err = pki.EnsureAuthority(t.TempDir(), "ca", "kubernetes"); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := signing.Sign(pki.Request{CommonName: "kube-apiserver", DNSNames: []string{"kubernetes"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCluster{authority: authority, shown: authority.PEM, clock: time.Now}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/kube-public/configmaps/cluster-info", func(w http.ResponseWriter, r *http.Request) {
		f.anonymous = append(f.anonymous, r.Header.Get("Authorization"))
		kubeconfig, err := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{"": {Server: "https://x", CertificateAuthorityData: f.shown}}})
		if err != nil {
			t.Error(err)
		}
		answer(w, http.StatusOK, &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, Data: map[string]string{"kubeconfig": string(kubeconfig)}})
	})
	mux.HandleFunc("GET "+operator.JoinPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+goodToken {
			status := apierrors.NewUnauthorized("Unauthorized").Status()
			status.Kind, status.APIVersion = "Status", "v1"
			answer(w, http.StatusUnauthorized, &status)
			return
		}
		answer(w, http.StatusOK, operator.Terms{Role: operator.Worker, Time: f.clock()})
	})
	f.server = httptest.NewUnstartedServer(mux)
	f.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	return f
}

func answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value)
}

func (f *fakeCluster) target(token string) *Target {
	return &Target{Server: f.server.URL, Token: token, CAHash: pki.KeyHash(f.authority.Certificate)}
}

func TestTheRightClusterIsDiscovered(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, "ca")
	c, err := discover(t.Context(), f.target(goodToken))
	if err != nil {
		t.Fatal(err)
	}
	if string(c.ca) != string(f.authority.PEM) || c.terms.Role != operator.Worker {
		t.Errorf("got %+v", c)
	}
	for _, secret := range f.anonymous {
		if secret != "" {
			t.Errorf("a server that was not verified got %q", secret)
		}
	}
}

func TestAClusterThatCannotBeBelievedIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		signer string
		change func(*fakeCluster, *Target)
		want   []string
	}{
		"another authority than the pinned one": {"ca", func(_ *fakeCluster, target *Target) {
			target.CAHash = "sha256:" + strings.Repeat("0", 64)
		}, []string{"--ca-hash", "sha256:0000", "skiff token create"}},
		"the right authority shown by somebody else's server": {"other", func(*fakeCluster, *Target) {}, []string{"another server answers"}},
		"no authority at all": {"ca", func(f *fakeCluster, _ *Target) { f.shown = []byte("none") }, []string{"cluster-info", "certificate"}},
		"a token nobody knows": {"ca", func(_ *fakeCluster, target *Target) { target.Token = "zzzzzz.0123456789abcdef" },
			[]string{"--token", "expired", "skiff token create"}},
		"a clock an hour ahead": {"ca", func(f *fakeCluster, _ *Target) { f.clock = func() time.Time { return time.Now().Add(time.Hour) } },
			[]string{"clock", "1h0m0s", "chrony"}},
		"nobody there": {"ca", func(f *fakeCluster, _ *Target) { f.server.Close() }, []string{"nothing answers", "firewall"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t, tc.signer)
			target := f.target(goodToken)
			tc.change(f, target)
			_, err := discover(context.WithoutCancel(t.Context()), target)
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

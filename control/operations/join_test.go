package operations

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

func newOperations(t *testing.T, log *bytes.Buffer, objects ...runtime.Object) *Operations {
	t.Helper()
	dir := t.TempDir()
	if _, err := pki.EnsureControl(pki.Control{Dir: dir, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	if err := pki.EnsureStoreMember(dir, "m1", nil, nil); err != nil {
		t.Fatal(err)
	}
	return New(Config{Client: fake.NewClientset(objects...), PKIDir: dir, Address: "192.0.2.1:6443", Logger: slog.New(slog.NewTextHandler(log, nil))})
}

// ask sends a request as a member of the group over an encrypted connection.
func ask(t *testing.T, o *Operations, group, method, path string, body any) (int, []byte) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	who := &user.DefaultInfo{Name: "system:bootstrap:abcdef", Groups: []string{group}}
	r := httptest.NewRequestWithContext(genericapirequest.WithUser(t.Context(), who), method, path, bytes.NewReader(data))
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}

// introduction of a worker that asks for more than it is due.
func worker(t *testing.T) (operator.JoinRequest, map[string][]byte) {
	t.Helper()
	keys := map[string][]byte{}
	request := operator.JoinRequest{NodeName: "w1", Address: "192.0.2.9"}
	for name, into := range map[string]*[]byte{"agent": &request.Agent, "agentServer": &request.AgentServer, "proxy": &request.Proxy} {
		csr, key, err := pki.NewRequest("kubernetes-admin")
		if err != nil {
			t.Fatal(err)
		}
		*into, keys[name] = csr, key
	}
	return request, keys
}

func TestAWorkerGetsItsNamesAndNoOthers(t *testing.T) {
	t.Parallel()
	o := newOperations(t, &bytes.Buffer{})
	request, keys := worker(t)
	code, body := ask(t, o, operator.WorkerGroup, http.MethodPost, operator.JoinWorkerPath, request)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	var grant operator.WorkerGrant
	if err := json.Unmarshal(body, &grant); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(grant.CA)
	for name, tc := range map[string]struct {
		certificate []byte
		subject     string
		usage       x509.ExtKeyUsage
	}{
		"agent":       {grant.Agent, "CN=system:node:w1,O=system:nodes", x509.ExtKeyUsageClientAuth},
		"agentServer": {grant.AgentServer, "CN=system:node:w1,O=system:nodes", x509.ExtKeyUsageServerAuth},
		"proxy":       {grant.Proxy, "CN=system:kube-proxy", x509.ExtKeyUsageClientAuth},
	} {
		if _, err := tls.X509KeyPair(tc.certificate, keys[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		block, _ := pem.Decode(tc.certificate)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := certificate.Subject.String(); got != tc.subject {
			t.Errorf("%s: subject %s, want %s", name, got, tc.subject)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{tc.usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if certificate.IsCA || len(certificate.ExtKeyUsage) != 1 {
			t.Errorf("%s: may do %v, authority: %v", name, certificate.ExtKeyUsage, certificate.IsCA)
		}
	}
}

func TestAControlMachineGetsTheAuthoritiesAndTheLogNoSecret(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	o := newOperations(t, &log)
	code, body := ask(t, o, operator.ControlGroup, http.MethodPost, operator.JoinControlPath, operator.JoinRequest{NodeName: "c2", Address: "192.0.2.2", MemberID: "m2"})
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	var grant operator.ControlGrant
	if err := json.Unmarshal(body, &grant); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "store-ca.crt", "store-ca.key"} {
		want, err := os.ReadFile(filepath.Join(o.PKIDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(grant.Files[name], want) {
			t.Errorf("%s is not the one of the cluster", name)
		}
	}
	if len(grant.Files) != 8 {
		t.Errorf("handed out: %d files", len(grant.Files))
	}
	for _, want := range []string{"c2", "192.0.2.2", "m2", "system:bootstrap:abcdef"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not mention %s: %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
}

func TestWhoMayNotJoinIsToldWhy(t *testing.T) {
	t.Parallel()
	alive := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "taken"},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}},
		},
	}
	request, _ := worker(t)
	named := func(name, address string) operator.JoinRequest {
		changed := request
		changed.NodeName, changed.Address = name, address
		return changed
	}
	noKeys := named("w1", "192.0.2.9")
	noKeys.Proxy = []byte("none")
	for name, tc := range map[string]struct {
		group, path string
		request     any
		code        int
		want        string
	}{
		"a worker's token for a control machine": {operator.WorkerGroup, operator.JoinControlPath, named("w1", "192.0.2.9"), http.StatusForbidden, operator.ControlGroup},
		"no join token":                          {"system:authenticated", operator.JoinWorkerPath, request, http.StatusForbidden, operator.WorkerGroup},
		"a name of a live machine":               {operator.WorkerGroup, operator.JoinWorkerPath, named("taken", "192.0.2.9"), http.StatusConflict, "--node-name"},
		"the same machine again":                 {operator.WorkerGroup, operator.JoinWorkerPath, named("taken", "192.0.2.7"), http.StatusOK, "agentServer"},
		"a name that is none":                    {operator.WorkerGroup, operator.JoinWorkerPath, named("W_1", "192.0.2.9"), http.StatusBadRequest, "nodeName"},
		"loopback":                               {operator.WorkerGroup, operator.JoinWorkerPath, named("w1", "127.0.0.1"), http.StatusBadRequest, "address"},
		"no certificate request":                 {operator.WorkerGroup, operator.JoinWorkerPath, noKeys, http.StatusBadRequest, "proxy"},
		"a field of another version":             {operator.WorkerGroup, operator.JoinWorkerPath, map[string]string{"nodename2": "x"}, http.StatusBadRequest, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body := ask(t, newOperations(t, &bytes.Buffer{}, alive.DeepCopy()), tc.group, http.MethodPost, tc.path, tc.request)
			if code != tc.code || !strings.Contains(string(body), tc.want) {
				t.Errorf("got %d %s, want %d with %q", code, body, tc.code, tc.want)
			}
		})
	}
}

func TestClusterInfoFollowsTheAuthority(t *testing.T) {
	t.Parallel()
	o := newOperations(t, &bytes.Buffer{})
	read := func() string {
		t.Helper()
		if err := o.ensureClusterInfo(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := o.Client.CoreV1().ConfigMaps("kube-public").Get(context.Background(), "cluster-info", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return info.Data["kubeconfig"]
	}
	first := read()
	if again := read(); again != first || !strings.Contains(first, "https://192.0.2.1:6443") {
		t.Errorf("first %s\nthen %s", first, again)
	}
	other, err := pki.EnsureAuthority(t.TempDir(), "ca", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.PKIDir, "ca.crt"), other.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed := read(); changed == first {
		t.Error("another authority is not published")
	}
}

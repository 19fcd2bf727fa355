package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	certificateutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/retry"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
)

const limit = time.Minute

// cluster is a control machine of one test.
type cluster struct {
	t      *testing.T
	config *config.Control
	admin  kubernetes.Interface
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	port := freePort(t)
	dir := t.TempDir()
	c := config.DefaultControl()
	c.DataDir, c.PKIDir, c.BindAddress, c.AdvertiseAddress, c.Port, c.LogLevel = filepath.Join(dir, "data"), filepath.Join(dir, "pki"), "127.0.0.1", "192.0.2.1", port, "warn"
	c.PeerPort = freePort(t)
	authority, err := pki.EnsureControl(pki.Control{Dir: c.PKIDir, ServiceCIDR: c.ServiceCIDR, ClusterDomain: c.ClusterDomain})
	if err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(dir, "admin.conf")
	if err := authority.EnsureKubeconfig(admin, "skiff", "https://127.0.0.1:"+strconv.Itoa(port), "kubernetes-admin", pki.AdminGroup); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	flags := config.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError), config.ControlKind, c)
	go func() { ended <- run(ctx, c, flags) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	})
	rest, err := clientcmd.BuildConfigFromFlags("", admin)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error() == nil
	}, "the API server is not ready")
	return &cluster{t, c, client}
}

// client returns a client that trusts the cluster's authority and is who edit says.
func (c *cluster) client(edit func(*rest.Config)) kubernetes.Interface {
	c.t.Helper()
	rest := &rest.Config{Host: "https://127.0.0.1:" + strconv.Itoa(c.config.Port), TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(c.config.PKIDir, "ca.crt")}}
	edit(rest)
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// token makes a bootstrap token for authentication and signing.
func (c *cluster) token(id, secret string) {
	c.t.Helper()
	if _, err := c.admin.CoreV1().Secrets(metav1.NamespaceSystem).Create(c.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: api.BootstrapTokenSecretPrefix + id}, Type: corev1.SecretType(api.SecretTypeBootstrapToken),
		StringData: map[string]string{
			api.BootstrapTokenIDKey: id, api.BootstrapTokenSecretKey: secret, api.BootstrapTokenUsageAuthentication: "true", api.BootstrapTokenUsageSigningKey: "true",
		},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// csr is a request for a certificate of a new key.
type csr struct {
	name, signer string
	template     x509.CertificateRequest
	usages       []certificatesv1.KeyUsage
}

func node(name string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
}

var (
	clientUsages  = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	servingUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
)

// ask makes the request as the client and returns its key.
func (c *cluster) ask(client kubernetes.Interface, r csr) (crypto.Signer, error) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	data, err := certificateutil.MakeCSRFromTemplate(key, &r.template)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = client.CertificatesV1().CertificateSigningRequests().Create(c.t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: r.name}, Spec: certificatesv1.CertificateSigningRequestSpec{Request: data, SignerName: r.signer, Usages: r.usages},
	}, metav1.CreateOptions{})
	return key, err
}

// obtain asks and waits for the certificate, as a client configuration.
func (c *cluster) obtain(client kubernetes.Interface, r csr) func(*rest.Config) {
	c.t.Helper()
	key, err := c.ask(client, r)
	if err != nil {
		c.t.Fatal(err)
	}
	var certificate []byte
	testenv.Eventually(c.t, limit, func() bool {
		got, err := client.CertificatesV1().CertificateSigningRequests().Get(c.t.Context(), r.name, metav1.GetOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		certificate = got.Status.Certificate
		return len(certificate) > 0
	}, "request %s is not answered", r.name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return func(config *rest.Config) {
		config.CertData, config.KeyData = certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
}

func TestAWorkerGetsItsCertificatesByBootstrapTokenAndNobodyElses(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.token("abcdef", "0123456789abcdef")
	bootstrap := c.client(func(config *rest.Config) { config.BearerToken = "abcdef.0123456789abcdef" })

	// Who joins reads the authority before it knows anybody, and believes it by the token.
	var info *corev1.ConfigMap
	if _, err := c.admin.CoreV1().ConfigMaps(metav1.NamespacePublic).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: api.ConfigMapClusterInfo}, Data: map[string]string{api.KubeConfigKey: "apiVersion: v1"},
	}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		var err error
		info, err = c.admin.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(t.Context(), api.ConfigMapClusterInfo, metav1.GetOptions{})
		return err == nil && info.Data[api.JWSSignatureKeyPrefix+"abcdef"] != ""
	}, "cluster-info is not signed")
	if !jws.DetachedTokenIsValid(info.Data[api.JWSSignatureKeyPrefix+"abcdef"], info.Data[api.KubeConfigKey], "abcdef", "0123456789abcdef") {
		t.Error("the signature of cluster-info is wrong")
	}

	agent := c.client(c.obtain(bootstrap, csr{
		name: "n1-client", signer: certificatesv1.KubeAPIServerClientKubeletSignerName, usages: clientUsages, template: x509.CertificateRequest{Subject: node("n1")},
	}))
	proxy := c.client(c.obtain(bootstrap, csr{
		name: "n1-proxy", signer: "skiff.dev/kube-proxy-client", usages: clientUsages, template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:kube-proxy"}},
	}))
	if _, err := proxy.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the proxy cannot read services: %v", err)
	}
	// Each renews its own.
	c.obtain(agent, csr{name: "n1-client-2", signer: certificatesv1.KubeAPIServerClientKubeletSignerName, usages: clientUsages, template: x509.CertificateRequest{Subject: node("n1")}})
	c.obtain(proxy, csr{name: "n1-proxy-2", signer: "skiff.dev/kube-proxy-client", usages: clientUsages, template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:kube-proxy"}}})

	// The endpoint's certificate waits for the node's addresses.
	serving := x509.CertificateRequest{Subject: node("n1"), DNSNames: []string{"n1"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 11)}}
	if _, err := c.ask(agent, csr{name: "n1-serving", signer: certificatesv1.KubeletServingSignerName, usages: servingUsages, template: serving}); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const addresses = `{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.11"},{"type":"Hostname","address":"n1"}]}}`
	if _, err := agent.CoreV1().Nodes().Patch(t.Context(), "n1", types.StrategicMergePatchType, []byte(addresses), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		got, err := c.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "n1-serving", metav1.GetOptions{})
		return err == nil && len(got.Status.Certificate) > 0
	}, "the serving certificate is not signed")

	// What it may not ask for at all.
	for name, r := range map[string]csr{
		"can only create a node CSR with CN=system:node:n1": {
			signer: certificatesv1.KubeAPIServerClientKubeletSignerName, usages: clientUsages, template: x509.CertificateRequest{Subject: node("n2")}},
		"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed": {
			signer: certificatesv1.KubeAPIServerClientSignerName, usages: clientUsages,
			template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "evil", Organization: []string{"system:masters"}}}},
		"should be a domain with at least two segments separated by dots": {
			signer: "example/thing", usages: clientUsages, template: x509.CertificateRequest{Subject: node("n1")}},
	} {
		r.name = "refused"
		if _, err := c.ask(agent, r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
	if _, err := agent.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), "n1-serving", &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "n1-serving"}}, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an agent approves: %v", err)
	}
}

func TestAPersonApprovesAUsersCertificateAndItIsSigned(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	requests := c.admin.CertificatesV1().CertificateSigningRequests()
	user := csr{name: "jane", signer: certificatesv1.KubeAPIServerClientSignerName, usages: clientUsages, template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane", Organization: []string{"devs"}}}}
	key, err := c.ask(c.admin, user)
	if err != nil {
		t.Fatal(err)
	}
	got, err := requests.Get(t.Context(), "jane", metav1.GetOptions{})
	if err != nil || got.Spec.Username != "kubernetes-admin" {
		t.Fatalf("requestor %q, %v", got.Spec.Username, err)
	}
	condition := func(kind certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "Test", Message: "by a test"}
	}
	// Not through the object or its status.
	got.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{condition(certificatesv1.CertificateApproved)}
	if _, err := requests.UpdateStatus(t.Context(), got, metav1.UpdateOptions{}); err == nil || !strings.Contains(err.Error(), `updates may not add a condition of type "Approved"`) {
		t.Errorf("got %v", err)
	}
	approved, err := requests.UpdateApproval(t.Context(), "jane", got, metav1.UpdateOptions{})
	if err != nil || approved.Status.Conditions[0].LastUpdateTime.IsZero() {
		t.Fatalf("got %v, %v", approved, err)
	}
	// The signer writes at the same time.
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := requests.Get(t.Context(), "jane", metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Status.Conditions = append(current.Status.Conditions, condition(certificatesv1.CertificateDenied))
		_, err = requests.UpdateApproval(t.Context(), "jane", current, metav1.UpdateOptions{})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "Approved and Denied conditions are mutually exclusive") {
		t.Errorf("got %v", err)
	}
	testenv.Eventually(t, limit, func() bool {
		got, err = requests.Get(t.Context(), "jane", metav1.GetOptions{})
		return err == nil && len(got.Status.Certificate) > 0
	}, "not signed")
	block, _ := pem.Decode(got.Status.Certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(c.config.PKIDir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || !public.Equal(certificate.PublicKey) || certificate.Subject.CommonName != "jane" || certificate.Subject.Organization[0] != "devs" || certificate.IsCA {
		t.Errorf("got a certificate of %v", certificate.Subject)
	}

	// Usages that the signer does not have fail for good.
	server := user
	server.name, server.usages = "server", servingUsages
	if _, err := c.ask(c.admin, server); err != nil {
		t.Fatal(err)
	}
	if got, err = requests.Get(t.Context(), "server", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	got.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{condition(certificatesv1.CertificateApproved)}
	if _, err := requests.UpdateApproval(t.Context(), "server", got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		got, err = requests.Get(t.Context(), "server", metav1.GetOptions{})
		return err == nil && len(got.Status.Conditions) == 2 && got.Status.Conditions[1].Reason == "SignerValidationFailure"
	}, "not failed")
	// As kubectl prints it.
	table := &metav1.Table{}
	if err := c.admin.CertificatesV1().RESTClient().Get().Resource("certificatesigningrequests").Name("server").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Into(table); err != nil {
		t.Fatal(err)
	}
	if row := table.Rows[0].Cells; row[2] != "kubernetes.io/kube-apiserver-client" || row[3] != "kubernetes-admin" || row[4] != "<none>" || row[5] != "Approved,Failed" {
		t.Errorf("row %v", row)
	}
	selected, err := requests.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.signerName=kubernetes.io/kube-apiserver-client"})
	if err != nil || len(selected.Items) != 2 {
		t.Errorf("selected %d, %v", len(selected.Items), err)
	}
}

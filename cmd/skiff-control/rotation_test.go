package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
)

// bootstrapKubeconfig writes one with the token.
func (c *cluster) bootstrapKubeconfig(dir, token string) string {
	c.t.Helper()
	path := filepath.Join(dir, "bootstrap.conf")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"skiff": {
			Server: "https://127.0.0.1:" + strconv.Itoa(c.config.Port), CertificateAuthority: filepath.Join(c.config.PKIDir, "ca.crt")}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"token": {Token: token}},
		Contexts:  map[string]*clientcmdapi.Context{"token": {Cluster: "skiff", AuthInfo: "token"}}, CurrentContext: "token",
	}, path); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// open opens a connection that runs until the test ends.
func open(t *testing.T, options apiclient.Options) *apiclient.Connection {
	t.Helper()
	options.UserAgent, options.Logger = "test", slog.New(slog.DiscardHandler)
	connection, err := apiclient.Load(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- connection.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	waiting, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	if err := connection.Wait(waiting); err != nil {
		t.Fatal(err)
	}
	return connection
}

func agentRotation(dir string) *apiclient.Rotation {
	return &apiclient.Rotation{
		Dir: filepath.Join(dir, "pki"), Name: "agent-client", Signer: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Subject: node("n1"), TrustFiles: []string{filepath.Join(dir, "pki/ca.crt")},
	}
}

func TestAMachineWithNothingButATokenGetsItsIdentityAndKeepsIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.token("abcdef", "0123456789abcdef")
	dir := t.TempDir()
	rotation := agentRotation(dir)
	rotation.BootstrapKubeconfig = c.bootstrapKubeconfig(dir, "abcdef.0123456789abcdef")
	kubeconfig := filepath.Join(dir, "agent.conf")
	agent := open(t, apiclient.Options{Kubeconfig: kubeconfig, Rotation: rotation})
	if _, err := agent.Client().CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// It is that node and no other, and no longer the token.
	if _, err := agent.Client().CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("made another node: %v", err)
	}
	if _, err := agent.Client().CoreV1().Nodes().Patch(t.Context(), "n1", types.StrategicMergePatchType,
		[]byte(`{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.11"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	serving, err := agent.NewServing(apiclient.Serving{Dir: rotation.Dir, Name: "agent-serving", Request: func() *x509.CertificateRequest {
		return &x509.CertificateRequest{Subject: node("n1"), DNSNames: []string{"n1"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 11)}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	serving.Start()
	defer serving.Stop()
	testenv.Eventually(t, limit, func() bool { return serving.Current() != nil }, "no serving certificate")
	if err := serving.Current().Leaf.VerifyHostname("192.0.2.11"); err != nil {
		t.Error(err)
	}
	// The kubeconfig names the newest certificate, for whoever else reads it.
	testenv.Eventually(t, limit, func() bool {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		return err == nil && config.CertFile == filepath.Join(rotation.Dir, "agent-client-current.pem")
	}, "the kubeconfig does not name the certificate")

	proxy := open(t, apiclient.Options{Kubeconfig: filepath.Join(dir, "proxy.conf"), Rotation: &apiclient.Rotation{
		Dir: rotation.Dir, Name: "proxy-client", Signer: apiclient.ProxySigner, Subject: pkix.Name{CommonName: "system:kube-proxy"},
		BootstrapKubeconfig: rotation.BootstrapKubeconfig,
	}})
	if _, err := proxy.Client().CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	found, err := pki.Check(rotation.Dir)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, each := range found {
		listed[each.Name] = each.Problem
	}
	for _, name := range []string{"ca", "agent-client", "agent-serving", "proxy-client"} {
		if problem, ok := listed[name]; !ok || problem != "" {
			t.Errorf("%s: listed %v, %q", name, ok, problem)
		}
	}

	// A new authority reaches the machine, and the certificates of the old one serve on.
	if err := pki.Introduce(c.config.PKIDir, "ca"); err != nil {
		t.Fatal(err)
	}
	again := open(t, apiclient.Options{Kubeconfig: kubeconfig, Rotation: agentRotation(dir)})
	testenv.Eventually(t, 3*limit, func() bool {
		bundle, err := pki.ReadBundle(filepath.Join(rotation.Dir, "ca.crt"))
		if err != nil || len(bundle) < 2 {
			// A daemon that starts asks at once.
			again = open(t, apiclient.Options{Kubeconfig: kubeconfig, Rotation: agentRotation(dir)})
			return false
		}
		return true
	}, "the new authority is not trusted")
	if _, err := again.Client().CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestAMachineThatJoinedRotatesTheCertificateItWasGiven(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "agent.conf")
	authority, err := pki.LoadAuthority(c.config.PKIDir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureKubeconfig(kubeconfig, "skiff", "https://127.0.0.1:"+strconv.Itoa(c.config.Port), "system:node:n1", "system:nodes"); err != nil {
		t.Fatal(err)
	}
	agent := open(t, apiclient.Options{Kubeconfig: kubeconfig, Rotation: agentRotation(dir)})
	testenv.Eventually(t, limit, func() bool {
		found, err := pki.Check(filepath.Join(dir, "pki"))
		if err != nil {
			return false
		}
		for _, each := range found {
			if each.Name == "agent-client" {
				return each.Problem == ""
			}
		}
		return false
	}, "no certificate of its own")
	if _, err := agent.Client().CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

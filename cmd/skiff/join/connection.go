package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/version"
)

const (
	// serverName is in every API server's certificate, whatever it is called by.
	serverName = "kubernetes"
	// patience bounds one request to the cluster that is to be joined.
	patience = 10 * time.Second
	// clockTolerance is how far the clocks of two machines may be apart: the
	// certificates of a cluster begin to be valid that much before they are made.
	clockTolerance = 5 * time.Minute
)

// Target is a cluster to join, as an operator names it.
type Target struct {
	// Server is the URL of an API server.
	Server string
	// Token is id.secret.
	Token string
	// CAHash is sha256: and the hexadecimal hash of the authority's public key.
	CAHash string
}

// hashPattern is kubeadm's format.
var hashPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// check finds what is wrong with the words before anybody is asked. It returns
// host:port of the server.
func (t *Target) check() (string, error) {
	text := t.Server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	server, err := url.Parse(text)
	switch {
	case err != nil || server.Hostname() == "" || server.Scheme != "https" || strings.Trim(server.Path, "/") != "":
		return "", fmt.Errorf("server %q: must be the URL of a control machine, for example https://192.168.56.10:6443", t.Server)
	case t.Token == "":
		return "", errors.New("--token is missing: make one on a control machine with \"skiff token create\"")
	case !util.IsValidBootstrapToken(t.Token):
		return "", errors.New("--token: must be id.secret, six and sixteen of a-z and 0-9, as \"skiff token create\" prints it")
	case t.CAHash == "":
		return "", errors.New("--ca-hash is missing: \"skiff token create\" on a control machine prints it; without it this machine cannot know whom it joins")
	case !hashPattern.MatchString(strings.ToLower(t.CAHash)):
		return "", fmt.Errorf("--ca-hash %q: must be sha256: and 64 hexadecimal digits, as \"skiff token create\" prints it", t.CAHash)
	}
	t.CAHash = strings.ToLower(t.CAHash)
	if server.Port() == "" {
		return net.JoinHostPort(server.Hostname(), "6443"), nil
	}
	return server.Host, nil
}

// cluster is the cluster to join once its authority is known to be the right one.
type cluster struct {
	target  *Target
	address string
	ca      []byte
	terms   operator.Terms
}

// discover reads the cluster's authority without believing anybody, compares
// its key with the hash the operator gave, and asks with the token for the terms.
func discover(ctx context.Context, target *Target) (*cluster, error) {
	address, err := target.check()
	if err != nil {
		return nil, err
	}
	c := &cluster{target: target, address: address}
	if c.ca, err = c.authority(ctx); err != nil {
		return nil, err
	}
	data, err := c.request(ctx, operator.JoinPath, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.terms); err != nil {
		return nil, fmt.Errorf("read the cluster's answer: %w", err)
	}
	if off := time.Since(c.terms.Time).Round(time.Second); off > clockTolerance || off < -clockTolerance {
		return nil, fmt.Errorf("the clock of this machine differs from %s's by %s: set it (for example with chrony or systemd-timesyncd) and join again", address, off)
	}
	return c, nil
}

// authority returns the cluster's authority, whose key has the pinned hash.
func (c *cluster) authority(ctx context.Context) ([]byte, error) {
	anonymous, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + c.address, Timeout: patience, UserAgent: userAgent(),
		// Nothing that is read this way is believed before its hash is checked, and nothing secret is sent.
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	info, err := anonymous.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, api.ConfigMapClusterInfo, metav1.GetOptions{})
	if err != nil {
		return nil, c.explain(err)
	}
	ca, certificates, err := authorityOf(info)
	if err != nil {
		return nil, fmt.Errorf("cluster-info of %s: %w", c.address, err)
	}
	var found []string
	for _, certificate := range certificates {
		if hash := pki.KeyHash(certificate); hash == c.target.CAHash {
			return ca, nil
		} else {
			found = append(found, hash)
		}
	}
	return nil, fmt.Errorf("--ca-hash: the authority of %s is %s, not %s: copy the line that \"skiff token create\" prints on a control machine of the right cluster; if it is the right one, somebody answers in its place",
		c.address, strings.Join(found, ", "), c.target.CAHash)
}

func authorityOf(info *corev1.ConfigMap) ([]byte, []*x509.Certificate, error) {
	known, err := clientcmd.Load([]byte(info.Data[api.KubeConfigKey]))
	if err != nil {
		return nil, nil, err
	}
	entry := known.Clusters[""]
	if entry == nil {
		return nil, nil, errors.New("names no cluster")
	}
	var certificates []*x509.Certificate
	for rest := entry.CertificateAuthorityData; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, nil, errors.New("holds no certificate")
	}
	return entry.CertificateAuthorityData, certificates, nil
}

// request asks the pinned cluster with the token: GET without a body, POST with one.
func (c *cluster) request(ctx context.Context, path string, body any) ([]byte, error) {
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + c.address, BearerToken: c.target.Token, Timeout: 3 * patience, UserAgent: userAgent(),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca, ServerName: serverName},
	})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	request := client.Discovery().RESTClient().Get()
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		request = client.Discovery().RESTClient().Post().Body(data)
	}
	result := request.AbsPath(path).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Do(ctx)
	// Only Error reads what the server says of its reason.
	if err := result.Error(); err != nil {
		return nil, c.explain(err)
	}
	return result.Raw()
}

// explain says what an operator can do about an error of a request.
func (c *cluster) explain(err error) error {
	var invalid x509.CertificateInvalidError
	var network *net.OpError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of %s is not valid at this machine's time, %s: set the clock, or renew the certificates there: %w",
			c.address, time.Now().Format(time.RFC3339), err)
	case errors.As(err, &verification):
		return fmt.Errorf("%s shows a certificate that the pinned authority has not signed: another server answers there: %w", c.address, err)
	case errors.As(err, &network):
		return fmt.Errorf("nothing answers at %s: give the URL of a control machine that runs, and let TCP port %s through the firewalls: %w", c.address, port(c.address), err)
	case apierrors.IsUnauthorized(err):
		return errors.New("--token: the cluster does not know it, or it has expired: make a new one on a control machine with \"skiff token create\"")
	case apierrors.IsForbidden(err) && c.ca == nil:
		return fmt.Errorf("%s does not show cluster-info to strangers: is it a control machine of Skiff? %w", c.address, err)
	case apierrors.IsNotFound(err) && c.ca == nil:
		return fmt.Errorf("%s has no cluster-info yet: wait until \"skiff status\" is fine there, and join again", c.address)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer in time: %w", c.address, err)
	}
	return fmt.Errorf("ask %s: %w", c.address, err)
}

// route is this machine's address on the way to the server.
func (c *cluster) route(ctx context.Context) (string, error) {
	dialer := net.Dialer{Timeout: patience}
	connection, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return "", c.explain(err)
	}
	defer connection.Close()
	address, ok := connection.LocalAddr().(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("this machine's address towards %s is %v: give --node-ip", c.address, connection.LocalAddr())
	}
	if address.IP.IsLoopback() {
		return "", fmt.Errorf("server %s is this machine itself: name another control machine, or give --node-ip", c.address)
	}
	return address.IP.String(), nil
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func userAgent() string { return "skiff/" + version.Version }

// hashOf names the authority in a PEM file as --ca-hash does.
func hashOf(ca []byte) (string, error) {
	block, _ := pem.Decode(ca)
	if block == nil {
		return "", errors.New("holds no PEM certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	return pki.KeyHash(certificate), nil
}

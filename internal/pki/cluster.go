package pki

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// AdminGroup is bound to cluster-admin at start-up, as kubeadm does: unlike
// system:masters it can be taken back.
const AdminGroup = "kubeadm:cluster-admins"

// Control describes a control machine to make certificates for.
type Control struct {
	// Dir is the folder of certificates, /etc/skiff/pki.
	Dir string
	// Names and Addresses are what clients call this machine.
	Names     []string
	Addresses []net.IP
	// ServiceCIDR is the service range: its first address is the API's own.
	ServiceCIDR   string
	ClusterDomain string
}

// EnsureControl makes what a control machine needs and keeps what is there.
func EnsureControl(c Control) (*Authority, error) {
	authority, err := EnsureAuthority(c.Dir, "ca", "kubernetes")
	if err != nil {
		return nil, err
	}
	frontProxy, err := EnsureAuthority(c.Dir, "front-proxy-ca", "front-proxy-ca")
	if err != nil {
		return nil, err
	}
	services, err := netip.ParsePrefix(c.ServiceCIDR)
	if err != nil {
		return nil, fmt.Errorf("serviceCIDR: %w", err)
	}
	names := append([]string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + c.ClusterDomain, "localhost",
	}, c.Names...)
	addresses := append([]net.IP{
		services.Masked().Addr().Next().AsSlice(), net.IPv4(127, 0, 0, 1), net.IPv6loopback,
	}, c.Addresses...)
	if err := authority.Ensure(c.Dir, "apiserver", Request{
		CommonName: "kube-apiserver", DNSNames: unique(names), IPs: uniqueIPs(addresses), Server: true,
	}); err != nil {
		return nil, err
	}
	if err := authority.Ensure(c.Dir, "apiserver-kubelet-client", Request{
		CommonName: "kube-apiserver-kubelet-client", Organizations: []string{AdminGroup}, Client: true,
	}); err != nil {
		return nil, err
	}
	if err := frontProxy.Ensure(c.Dir, "front-proxy-client", Request{CommonName: "front-proxy-client", Client: true}); err != nil {
		return nil, err
	}
	return authority, EnsureKeyPair(c.Dir, "sa")
}

// EnsureAgent makes the serving certificate of the agent on one machine.
func (a *Authority) EnsureAgent(dir, nodeName string, addresses []net.IP) error {
	return a.Ensure(dir, "agent-server", AgentRequest(nodeName, addresses))
}

// AgentRequest describes the serving certificate of the agent on one machine.
func AgentRequest(nodeName string, addresses []net.IP) Request {
	return Request{
		CommonName: "system:node:" + nodeName, Organizations: []string{"system:nodes"},
		DNSNames: unique([]string{nodeName, "localhost"}), IPs: uniqueIPs(append([]net.IP{net.IPv4(127, 0, 0, 1)}, addresses...)), Server: true,
	}
}

// EnsureKubeconfig keeps a kubeconfig at path whose embedded client certificate
// fits the identity and whose server is the given URL; otherwise it writes one.
func (a *Authority) EnsureKubeconfig(path, cluster, server, commonName string, organizations ...string) error {
	request := Request{CommonName: commonName, Organizations: organizations, Client: true}
	if current, err := clientcmd.LoadFromFile(path); err == nil {
		user, known := current.AuthInfos[commonName]
		target, named := current.Clusters[cluster]
		if known && named && target.Server == server && string(target.CertificateAuthorityData) == string(a.PEM) &&
			a.fits(Pair{Certificate: user.ClientCertificateData, Key: user.ClientKeyData}, request) {
			return nil
		}
	} else if !os.IsNotExist(err) {
		return fmt.Errorf("read kubeconfig: %w; remove the file to have it made anew", err)
	}
	pair, err := a.Sign(request)
	if err != nil {
		return fmt.Errorf("sign client certificate of %s: %w", commonName, err)
	}
	return WriteKubeconfig(path, cluster, server, a.PEM, commonName, pair)
}

// WriteKubeconfig writes a kubeconfig whose user shows the pair to the server
// and believes servers of the authority ca.
func WriteKubeconfig(path, cluster, server string, ca []byte, user string, pair Pair) error {
	context := user + "@" + cluster
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}},
		Contexts:       map[string]*clientcmdapi.Context{context: {Cluster: cluster, AuthInfo: user}},
		CurrentContext: context,
	})
	if err != nil {
		return fmt.Errorf("encode kubeconfig %s: %w", filepath.Base(path), err)
	}
	return WriteFile(path, data)
}

func unique(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, name := range names {
		if name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

func uniqueIPs(addresses []net.IP) []net.IP {
	seen := map[string]bool{}
	var out []net.IP
	for _, address := range addresses {
		if key := address.String(); !seen[key] {
			seen[key] = true
			out = append(out, address)
		}
	}
	return out
}

package agent

import (
	"fmt"
	"net/netip"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/internal/config"
)

// resolvConfs are tried in order: behind systemd-resolved's stub, which pods
// cannot reach, stands the file with the real servers.
func resolvConfs() []string {
	return []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
}

// newResolver reads what pods are told of name servers.
func newResolver(s *config.Agent) (*hostfiles.Resolver, error) {
	r := &hostfiles.Resolver{ClusterDNS: s.ClusterDNS, ClusterDomain: s.ClusterDomain, Host: &runtimeapi.DNSConfig{}}
	for _, path := range resolvConfs() {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the node's name servers: %w", err)
		}
		parsed, err := hostfiles.ParseResolvConf(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read the node's name servers from %s: %w", path, err)
		}
		r.Host = parsed
		if !onlyLoopback(parsed.GetServers()) {
			break
		}
	}
	return r, nil
}

func onlyLoopback(servers []string) bool {
	for _, s := range servers {
		if ip, err := netip.ParseAddr(s); err != nil || !ip.IsLoopback() {
			return false
		}
	}
	return true
}

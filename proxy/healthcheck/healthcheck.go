// Package healthcheck answers load balancers on the healthCheckNodePort of
// services whose external traffic policy is Local: 200 where the node has ready
// endpoints of the service, 503 where it has none, with the body and headers
// of kube-proxy.
package healthcheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/proxy/table"
)

// Servers are the listeners of one node. Sync and Close belong to one
// goroutine.
type Servers struct {
	// healthy says whether the proxy itself can be relied on.
	healthy   func() bool
	listening map[netip.AddrPort]*server
}

// server answers on one address for one service.
type server struct {
	healthy func() bool
	http    *http.Server
	ended   chan struct{}

	mu sync.Mutex // guards check
	// check is what to answer.
	check table.HealthCheck
}

// New returns servers that answer nothing yet.
func New(healthy func() bool) *Servers {
	return &Servers{healthy: healthy, listening: map[netip.AddrPort]*server{}}
}

// Sync listens for every check on every address of the node in ranges, and on
// nothing else. The error tells which could not be opened; the others serve.
func (s *Servers) Sync(checks []table.HealthCheck, ranges []netip.Prefix) error {
	if len(checks) == 0 && len(s.listening) == 0 {
		return nil
	}
	addresses, err := localAddresses(ranges)
	if err != nil {
		return err
	}
	wanted := map[netip.AddrPort]table.HealthCheck{}
	for _, check := range checks {
		for _, address := range addresses {
			wanted[netip.AddrPortFrom(address, check.Port)] = check
		}
	}
	for address, one := range s.listening {
		if _, stays := wanted[address]; !stays {
			one.close()
			delete(s.listening, address)
		}
	}
	var errs []error
	for address, check := range wanted {
		if one := s.listening[address]; one != nil {
			one.mu.Lock()
			one.check = check
			one.mu.Unlock()
			continue
		}
		one, err := listen(address, check, s.healthy)
		if err != nil {
			errs = append(errs, fmt.Errorf("serve health checks of service %s: %w", check.Service, err))
			continue
		}
		s.listening[address] = one
	}
	return errors.Join(errs...)
}

// Close stops them all.
func (s *Servers) Close() {
	for address, one := range s.listening {
		one.close()
		delete(s.listening, address)
	}
}

// localAddresses are the addresses to listen on: the unspecified one stands for
// all of its family.
func localAddresses(ranges []netip.Prefix) ([]netip.Addr, error) {
	var found []netip.Addr
	some := false
	for _, prefix := range ranges {
		if prefix.Bits() == 0 {
			found = append(found, prefix.Addr())
		} else {
			some = true
		}
	}
	if !some {
		return found, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the node's addresses: %w", err)
	}
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if err != nil || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		for _, limit := range ranges {
			if limit.Bits() > 0 && limit.Contains(prefix.Addr()) {
				found = append(found, prefix.Addr())
				break
			}
		}
	}
	return found, nil
}

func listen(address netip.AddrPort, check table.HealthCheck, healthy func() bool) (*server, error) {
	network := "tcp4"
	if address.Addr().Is6() {
		network = "tcp6"
	}
	listener, err := net.Listen(network, address.String())
	if err != nil {
		return nil, err
	}
	one := &server{healthy: healthy, check: check, ended: make(chan struct{})}
	one.http = &http.Server{Handler: one, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	go func() {
		defer close(one.ended)
		_ = one.http.Serve(listener) // until close
	}()
	return one, nil
}

func (s *server) close() {
	_ = s.http.Close()
	<-s.ended
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	check := s.check
	s.mu.Unlock()
	healthy := s.healthy()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Load balancers that can send more to nodes with more endpoints read this.
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(check.LocalEndpoints))
	if check.LocalEndpoints == 0 || !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	// The client is gone when this fails.
	_ = encoder.Encode(answer{
		Service: service(check.Service), LocalEndpoints: check.LocalEndpoints, ServiceProxyHealthy: healthy,
	})
}

// answer is kube-proxy's.
type answer struct {
	Service             serviceName `json:"service"`
	LocalEndpoints      int         `json:"localEndpoints"`
	ServiceProxyHealthy bool        `json:"serviceProxyHealthy"`
}

type serviceName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func service(name types.NamespacedName) serviceName {
	return serviceName{Namespace: name.Namespace, Name: name.Name}
}

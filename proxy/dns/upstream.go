package dns

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	// resolvedStub and resolvedProxy are systemd-resolved's listeners. They
	// forward to what the machine is configured with, which may be us: its own
	// list is read instead.
	resolvedStub  = "127.0.0.53"
	resolvedProxy = "127.0.0.54"
	resolvedList  = "/run/systemd/resolve/resolv.conf"
	resolvConf    = "/etc/resolv.conf"
	// lookEvery is how often the file is looked at for changes.
	lookEvery = 5 * time.Second
	// A server that failed maxFails times in a row is asked last until a pause
	// has passed; each further failure doubles the pause up to the longest.
	maxFails     = 2
	pauseFirst   = 500 * time.Millisecond
	pauseLongest = 10 * time.Second
)

// upstream is one server and how it did lately.
type upstream struct {
	address string
	fails   int
	until   time.Time // the end of its pause
	loops   bool      // it leads back to us
}

// upstreams are the servers for some names.
type upstreams struct {
	config Config
	logger *slog.Logger
	// probe finds out whether a server leads back to us; nil: nobody looks.
	probe func(address string)
	now   func() time.Time

	mu       sync.Mutex // guards what follows
	servers  []*upstream
	read     time.Time
	modified time.Time
}

func newUpstreams(config Config) *upstreams {
	u := &upstreams{config: config, logger: config.Logger, now: time.Now}
	u.set(config.Upstreams)
	return u
}

func (u *upstreams) set(addresses []string) {
	u.servers = nil
	for _, address := range addresses {
		u.servers = append(u.servers, &upstream{address: address})
	}
}

// watch has every server probed, now and when the list changes.
func (u *upstreams) watch(probe func(address string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probe = probe
	u.refresh()
}

// inOrder returns the servers as they are to be asked: first those that work,
// in the order of the policy. Those that lead back to us are not among them.
func (u *upstreams) inOrder() []*upstream {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	var well, unwell []*upstream
	now := u.now()
	for _, server := range u.servers {
		switch {
		case server.loops:
		case server.fails >= maxFails && now.Before(server.until):
			unwell = append(unwell, server)
		default:
			well = append(well, server)
		}
	}
	if u.config.Policy == Random {
		rand.Shuffle(len(well), func(i, j int) { well[i], well[j] = well[j], well[i] })
	}
	return append(well, unwell...)
}

// judge remembers how a server did.
func (u *upstreams) judge(server *upstream, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		if server.fails >= maxFails {
			u.logger.Info("a DNS server answers again", "server", server.address)
		}
		server.fails = 0
		return
	}
	if server.fails++; server.fails < maxFails {
		return
	}
	if server.fails == maxFails {
		u.logger.Warn("a DNS server does not answer; others are asked first", "server", server.address, "error", err)
	}
	server.until = u.now().Add(min(pauseFirst<<min(server.fails-maxFails, 10), pauseLongest))
}

// exclude takes a server out that leads back to us.
func (u *upstreams) exclude(address string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, server := range u.servers {
		if server.address == address && !server.loops {
			server.loops = true
			u.logger.Error("a DNS server forwards to this one and is not asked any more; name others in resolv.conf or in dns.upstreams", "server", address)
		}
	}
}

// refresh reads the machine's configuration again when it has changed. The
// caller holds mu.
func (u *upstreams) refresh() {
	if len(u.config.Upstreams) > 0 || time.Since(u.read) < lookEvery {
		if u.read.IsZero() {
			u.read = time.Now()
			u.probeAll()
		}
		return
	}
	u.read = time.Now()
	path := cmp.Or(u.config.ResolvConf, resolvConf)
	info, err := os.Stat(path)
	if err != nil {
		u.logger.Warn("the machine's resolvers cannot be read", "error", err)
		return
	}
	if info.ModTime().Equal(u.modified) {
		return
	}
	u.modified = info.ModTime()
	addresses := u.readServers(path)
	u.set(addresses)
	u.logger.Info("forwarding other names", "servers", addresses)
	u.probeAll()
}

func (u *upstreams) probeAll() {
	if u.probe != nil {
		for _, server := range u.servers {
			u.probe(server.address)
		}
	}
}

// readServers lists a resolv.conf's servers without those that would lead back
// to us.
func (u *upstreams) readServers(path string) []string {
	parsed, err := miekg.ClientConfigFromFile(path)
	if err != nil {
		u.logger.Warn("the machine's resolvers cannot be read", "path", path, "error", err)
		return nil
	}
	if (slices.Contains(parsed.Servers, resolvedStub) || slices.Contains(parsed.Servers, resolvedProxy)) && path != resolvedList {
		if _, err := os.Stat(resolvedList); err == nil {
			return u.readServers(resolvedList)
		}
	}
	var servers []string
	for _, server := range parsed.Servers {
		if address, err := netip.ParseAddr(server); err == nil && address == u.config.Address {
			continue
		}
		servers = append(servers, net.JoinHostPort(server, parsed.Port))
	}
	return servers
}

func sortLongestFirst(stubs []stub) {
	slices.SortFunc(stubs, func(a, b stub) int {
		return cmp.Or(cmp.Compare(miekg.CountLabel(b.domain), miekg.CountLabel(a.domain)), cmp.Compare(a.domain, b.domain))
	})
}

package dns

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
	"k8s.io/utils/lru"
)

const (
	// upstreamTimeout is how long one server may take to answer; every server is
	// asked twice before the client gets SERVFAIL.
	upstreamTimeout = 2 * time.Second
	upstreamRounds  = 2
	// cacheEntries and cacheLongest bound what is remembered of other zones.
	cacheEntries = 4096
	cacheLongest = 5 * time.Minute
	// resolvedStub is systemd-resolved's listener. It forwards to what the
	// machine is configured with, which may be us: its own list is read instead.
	resolvedStub = "127.0.0.53"
	resolvedList = "/run/systemd/resolve/resolv.conf"
	resolvConf   = "/etc/resolv.conf"
)

// forwarder asks the machine's resolvers for names outside the cluster and
// remembers their answers for as long as they allow.
type forwarder struct {
	config Config
	cache  *lru.Cache
	logger *slog.Logger

	mu       sync.Mutex // guards what follows
	upstream []string
	read     time.Time
	modified time.Time
}

func newForwarder(config Config) *forwarder {
	return &forwarder{config: config, cache: lru.New(cacheEntries), logger: config.Logger}
}

type cacheKey struct {
	name   string
	qtype  uint16
	secure bool
}

type cached struct {
	reply *miekg.Msg
	until time.Time
	at    time.Time
}

// ask answers from the cache or from the first server that answers.
func (f *forwarder) ask(query *miekg.Msg) *miekg.Msg {
	question := query.Question[0]
	edns := query.IsEdns0()
	key := cacheKey{strings.ToLower(question.Name), question.Qtype, edns != nil && edns.Do()}
	if reply := f.remembered(key, query); reply != nil {
		return reply
	}
	var lastErr error
	servers := f.servers()
	for range upstreamRounds {
		for _, server := range servers {
			reply, err := exchange(query, server)
			if err != nil {
				lastErr = err
				continue
			}
			f.remember(key, reply)
			reply.Id = query.Id
			return reply
		}
	}
	f.logger.Debug("no upstream answered", "name", question.Name, "servers", servers, "error", lastErr)
	reply := new(miekg.Msg)
	reply.SetRcode(query, miekg.RcodeServerFailure)
	reply.RecursionAvailable = true
	return reply
}

// exchange asks one server, over TCP when the answer does not fit a datagram.
func exchange(query *miekg.Msg, server string) (*miekg.Msg, error) {
	question := query.Copy()
	question.Id = miekg.Id()
	question.RecursionDesired = true
	client := &miekg.Client{Net: "udp", Timeout: upstreamTimeout, UDPSize: 4096}
	reply, _, err := client.Exchange(question, server)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.Exchange(question, server)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	return reply, nil
}

func (f *forwarder) remembered(key cacheKey, query *miekg.Msg) *miekg.Msg {
	value, found := f.cache.Get(key)
	if !found {
		return nil
	}
	entry := value.(cached)
	now := time.Now()
	if now.After(entry.until) {
		f.cache.Remove(key)
		return nil
	}
	reply := entry.reply.Copy()
	reply.Id = query.Id
	reply.Question = query.Question
	age := uint32(now.Sub(entry.at).Seconds())
	for _, section := range [][]miekg.RR{reply.Answer, reply.Ns, reply.Extra} {
		for _, record := range section {
			if header := record.Header(); header.Rrtype != miekg.TypeOPT {
				header.Ttl -= min(age, header.Ttl)
			}
		}
	}
	return reply
}

func (f *forwarder) remember(key cacheKey, reply *miekg.Msg) {
	if reply.Rcode != miekg.RcodeSuccess && reply.Rcode != miekg.RcodeNameError {
		return
	}
	shortest := cacheLongest
	records := 0
	for _, section := range [][]miekg.RR{reply.Answer, reply.Ns} {
		for _, record := range section {
			records++
			life := time.Duration(record.Header().Ttl) * time.Second
			if soa, negative := record.(*miekg.SOA); negative {
				life = min(life, time.Duration(soa.Minttl)*time.Second)
			}
			shortest = min(shortest, life)
		}
	}
	if records == 0 || shortest <= 0 {
		return
	}
	now := time.Now()
	f.cache.Add(key, cached{reply: reply.Copy(), at: now, until: now.Add(shortest)})
}

// servers returns whom to ask, reading the machine's configuration again when
// it has changed.
func (f *forwarder) servers() []string {
	if len(f.config.Upstreams) > 0 {
		return f.config.Upstreams
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.read) < 5*time.Second {
		return f.upstream
	}
	f.read = time.Now()
	path := cmp.Or(f.config.ResolvConf, resolvConf)
	info, err := os.Stat(path)
	if err != nil {
		f.logger.Warn("the machine's resolvers cannot be read", "error", err)
		return f.upstream
	}
	if !info.ModTime().Equal(f.modified) {
		f.modified = info.ModTime()
		f.upstream = f.readServers(path)
		f.logger.Info("forwarding other names", "servers", f.upstream)
	}
	return f.upstream
}

// readServers lists a resolv.conf's servers without those that would lead back
// to us.
func (f *forwarder) readServers(path string) []string {
	parsed, err := miekg.ClientConfigFromFile(path)
	if err != nil {
		f.logger.Warn("the machine's resolvers cannot be read", "path", path, "error", err)
		return nil
	}
	if slices.Contains(parsed.Servers, resolvedStub) && path != resolvedList {
		if _, err := os.Stat(resolvedList); err == nil {
			return f.readServers(resolvedList)
		}
	}
	var servers []string
	for _, server := range parsed.Servers {
		if address, err := netip.ParseAddr(server); err == nil && address == f.config.Address {
			continue
		}
		servers = append(servers, net.JoinHostPort(server, parsed.Port))
	}
	return servers
}

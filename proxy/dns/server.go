package dns

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// aliasLimit bounds how many ExternalName services may follow one another.
const aliasLimit = 8

// udpSize is how large an answer over UDP may be without fragments on any
// usual link (DNS flag day 2020).
const udpSize = 1232

// patience is how long queries to a daemon that was restarted may wait for the
// services to be known. Clients wait 5 s before they ask again.
const patience = 2 * time.Second

// Server answers on the cluster's DNS address.
type Server struct {
	config  Config
	zone    *zone
	forward *forwarder
	loops   *loops
	metrics *metrics
	ready   atomic.Bool
	filled  chan struct{} // closed when ready
	logger  *slog.Logger

	mu      sync.Mutex // guards running, and changes of the servers
	running bool
}

// NewServer returns a server that Run starts.
func NewServer(config Config, source Source) (*Server, error) {
	domain := strings.ToLower(miekg.Fqdn(config.Domain))
	if _, valid := miekg.IsDomainName(domain); !valid {
		return nil, fmt.Errorf("cluster domain %q is no domain name", config.Domain)
	}
	s := &Server{config: config, zone: &zone{domain: domain, source: source, server: config.Address}, filled: make(chan struct{}), logger: config.Logger}
	s.metrics = newMetrics(func() int { return s.forward.cache.len() })
	s.forward = newForwarder(config, s.metrics)
	s.loops = newLoops(func(server string) {
		s.forward.servers.Load().each(func(u *upstreams) { u.exclude(server) })
	})
	return s, nil
}

// Collectors are the server's metrics.
func (s *Server) Collectors() []prometheus.Collector { return s.metrics.collectors() }

// watchForLoops has every upstream asked, now and when they change, whether it
// leads back to us.
func (s *Server) watchForLoops() {
	probe := func(server string) {
		s.forward.refreshes.Go(func() { s.loops.probe(s.forward.ctx, server) })
	}
	s.forward.servers.Load().each(func(u *upstreams) { u.watch(probe) })
}

// Forward changes the servers for names outside the cluster to those of the
// configuration, of which nothing else counts. What the former ones answered is
// forgotten. It may be called while Run does or before.
func (s *Server) Forward(config Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forward.servers.Store(newServers(config))
	s.forward.cache.clear()
	if s.running {
		s.watchForLoops()
	}
}

// serving says whether Run answers, so that servers may be probed.
func (s *Server) serving(running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running = running; running {
		s.watchForLoops()
	}
}

// Ready says that the source is complete. Before, names of the cluster are
// answered with SERVFAIL, so that clients ask again instead of believing that
// a name does not exist.
func (s *Server) Ready() {
	if s.ready.CompareAndSwap(false, true) {
		close(s.filled)
	}
}

// Run puts the address on our link and answers until ctx ends. The link stays,
// so that a restarted daemon loses no packet to a missing address; Cleanup
// removes it. The sockets belong to the network namespace of the calling thread.
func (s *Server) Run(ctx context.Context) error {
	if err := ensureLink(s.config.Address); err != nil {
		return err
	}
	address := netip.AddrPortFrom(s.config.Address, 53)
	at, err := listen(address)
	if err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	defer at.Close()
	if at.unkept != nil {
		s.logger.Warn("cluster DNS will refuse queries while this daemon is restarted: systemd does not keep its sockets", "error", at.unkept)
	}
	if at.inherited {
		// What was asked since the former process ended waits in the sockets; with a
		// little patience it is answered by what the cluster has.
		select {
		case <-s.filled:
		case <-time.After(patience):
		case <-ctx.Done():
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range []*miekg.Server{{PacketConn: at.packets}, {Listener: at.listener}} {
		server.Handler, server.ReadTimeout, server.UDPSize = s, 5*time.Second, 4096
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		group.Go(func() error {
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve DNS at %s: %w", address, err)
			}
			return nil
		})
		group.Go(func() error {
			// A server that is told to stop before it has started would not.
			<-started
			<-ctx.Done()
			return server.Shutdown()
		})
	}
	s.serving(true)
	err = group.Wait()
	s.serving(false)
	s.forward.close()
	return err
}

// ServeDNS implements miekg.Handler.
func (s *Server) ServeDNS(w miekg.ResponseWriter, query *miekg.Msg) {
	begin := time.Now()
	reply := s.answer(query)
	zone := "."
	if reply.Authoritative {
		zone = s.zone.domain
	}
	s.metrics.answered(zone, w.RemoteAddr().Network(), query, reply, time.Since(begin))
	if edns := query.IsEdns0(); edns != nil {
		reply.SetEdns0(udpSize, edns.Do())
	}
	if w.RemoteAddr().Network() == "udp" {
		size := miekg.MinMsgSize
		if edns := query.IsEdns0(); edns != nil {
			size = min(max(int(edns.UDPSize()), size), udpSize)
		}
		reply.Truncate(size)
	}
	// The client is gone when this fails.
	_ = w.WriteMsg(reply)
}

// answer makes the whole reply to a query.
func (s *Server) answer(query *miekg.Msg) *miekg.Msg {
	reply := new(miekg.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true
	if query.Opcode != miekg.OpcodeQuery {
		reply.Rcode = miekg.RcodeNotImplemented
		return reply
	}
	if len(query.Question) != 1 || query.Question[0].Qclass != miekg.ClassINET {
		reply.Rcode = miekg.RcodeRefused
		return reply
	}
	if edns := query.IsEdns0(); edns != nil && edns.Version() != 0 {
		reply.Rcode = miekg.RcodeBadVers
		return reply
	}
	question := query.Question[0]
	if s.loops.seen(question) {
		reply.Rcode = miekg.RcodeRefused
		return reply
	}
	found, ours := s.find(strings.ToLower(question.Name), question.Qtype)
	if !ours {
		return s.forward.ask(query)
	}
	if !s.ready.Load() {
		reply.Rcode = miekg.RcodeServerFailure
		return reply
	}
	reply.Authoritative = true
	s.follow(&found, question.Qtype, reply)
	// Clients that check the case of the name get it back as they wrote it.
	for _, record := range found.records {
		if strings.EqualFold(record.Header().Name, question.Name) {
			record.Header().Name = question.Name
		}
	}
	rand.Shuffle(len(found.records), func(i, j int) {
		// An alias stays before what it leads to.
		if found.alias == "" {
			found.records[i], found.records[j] = found.records[j], found.records[i]
		}
	})
	reply.Answer, reply.Extra = found.records, found.extra
	if len(reply.Answer) == 0 && reply.Rcode == miekg.RcodeSuccess {
		reply.Ns = []miekg.RR{s.zone.soa()}
		if !found.exists {
			reply.Rcode = miekg.RcodeNameError
		}
	}
	return reply
}

// find looks a name up in what is the cluster's; ours is false for the rest of
// the world.
func (s *Server) find(name string, qtype uint16) (found answer, ours bool) {
	if miekg.IsSubDomain(s.zone.domain, name) {
		return s.zone.lookup(name, qtype), true
	}
	if strings.HasSuffix(name, ".arpa.") {
		return s.zone.reverse(name, qtype)
	}
	return answer{}, false
}

// follow resolves the alias of an ExternalName service to the end.
func (s *Server) follow(found *answer, qtype uint16, reply *miekg.Msg) {
	target := found.alias
	for range aliasLimit {
		if target == "" || qtype == miekg.TypeCNAME {
			return
		}
		next, ours := s.find(target, qtype)
		if !ours {
			question := new(miekg.Msg)
			question.SetQuestion(target, qtype)
			outside := s.forward.ask(question)
			if outside.Rcode != miekg.RcodeSuccess && outside.Rcode != miekg.RcodeNameError {
				reply.Rcode = outside.Rcode
			}
			found.records = append(found.records, outside.Answer...)
			return
		}
		found.records = append(found.records, next.records...)
		target = next.alias
	}
	if target != "" {
		// A circle of aliases.
		reply.Rcode = miekg.RcodeServerFailure
	}
}

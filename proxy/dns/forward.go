package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// upstreamTimeout is how long one server may take to answer, forwardTimeout
	// how long all of them together before the client gets SERVFAIL: shorter than
	// the five seconds after which resolvers ask again.
	upstreamTimeout = 1500 * time.Millisecond
	forwardTimeout  = 4500 * time.Millisecond
)

// forwarder asks other servers for names outside the cluster and remembers
// their answers for as long as they allow.
type forwarder struct {
	cache   *cache
	flights singleflight.Group
	// servers are those that are asked.
	servers atomic.Pointer[servers]
	metrics *metrics
	logger  *slog.Logger
	now     func() time.Time

	// refreshes are the answers being fetched in the background.
	refreshes sync.WaitGroup
	ctx       context.Context
	stop      context.CancelFunc
}

// servers are the servers for every name, and those for domains, longest first.
type servers struct {
	all   *upstreams
	stubs []stub
}

func newServers(config Config) *servers {
	s := &servers{all: newUpstreams(config)}
	for domain, addresses := range config.StubDomains {
		own := config
		own.Upstreams = addresses
		s.stubs = append(s.stubs, stub{strings.ToLower(miekg.Fqdn(domain)), newUpstreams(own)})
	}
	sortLongestFirst(s.stubs)
	return s
}

// each calls visit for every group of servers.
func (s *servers) each(visit func(*upstreams)) {
	visit(s.all)
	for _, stub := range s.stubs {
		visit(stub.servers)
	}
}

type stub struct {
	domain  string
	servers *upstreams
}

func newForwarder(config Config, m *metrics) *forwarder {
	f := &forwarder{cache: newCache(), metrics: m, logger: config.Logger, now: time.Now}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.servers.Store(newServers(config))
	return f
}

// close ends what runs in the background.
func (f *forwarder) close() {
	f.stop()
	f.refreshes.Wait()
}

// serversFor are those to ask for a name in lower case.
func (f *forwarder) serversFor(name string) *upstreams {
	servers := f.servers.Load()
	for _, s := range servers.stubs {
		if miekg.IsSubDomain(s.domain, name) {
			return s.servers
		}
	}
	return servers.all
}

// ask answers from the cache or from the first server that answers.
func (f *forwarder) ask(query *miekg.Msg) *miekg.Msg {
	question := query.Question[0]
	edns := query.IsEdns0()
	key := cacheKey{strings.ToLower(question.Name), question.Qtype, edns != nil && edns.Do()}
	known := f.cache.get(key)
	if known != nil {
		now := f.now()
		if usable, refresh := known.fresh(now); usable {
			f.metrics.hit(known.reply)
			if refresh {
				f.metrics.prefetches.Inc()
				f.refreshes.Go(func() { _, _ = f.fetch(key) })
			}
			return known.answer(query, now)
		}
	}
	f.metrics.misses.Inc()
	// Clients that ask the same at the same time share one question.
	got, err, _ := f.flights.Do(fmt.Sprint(key), func() (any, error) { return f.fetch(key) })
	now := f.now()
	if fetched, ok := got.(*miekg.Msg); err == nil && ok && (fetched.Rcode != miekg.RcodeServerFailure || known == nil || !known.stale(now)) {
		return (&entry{reply: fetched, at: now, until: now.Add(time.Hour)}).answer(query, now)
	}
	if known != nil && known.stale(now) {
		f.metrics.stale.Inc()
		return known.answer(query, now)
	}
	f.logger.Debug("no upstream answered", "name", question.Name, "error", err)
	reply := new(miekg.Msg)
	reply.SetRcode(query, miekg.RcodeServerFailure)
	reply.RecursionAvailable = true
	return reply
}

var errNoUpstream = errors.New("no upstream server is known")

// fetch asks the servers for a name in their order until one answers, and
// remembers the answer.
func (f *forwarder) fetch(key cacheKey) (*miekg.Msg, error) {
	ctx, cancel := context.WithTimeout(f.ctx, forwardTimeout)
	defer cancel()
	query := new(miekg.Msg)
	query.SetQuestion(key.name, key.qtype)
	query.SetEdns0(udpSize, key.secure)
	servers := f.serversFor(key.name)
	lastErr := errNoUpstream
	var failure *miekg.Msg
	// Datagrams get lost: every server is asked twice.
	for range 2 {
		for _, server := range servers.inOrder() {
			begin := f.now()
			reply, err := exchange(ctx, query, server.address)
			if ctx.Err() != nil {
				return failure, errors.Join(lastErr, ctx.Err())
			}
			servers.judge(server, err)
			f.metrics.forwarded(server.address, reply, f.now().Sub(begin))
			if err != nil {
				lastErr = err
				continue
			}
			if reply.Rcode == miekg.RcodeServerFailure || reply.Rcode == miekg.RcodeRefused {
				// Another may know.
				failure = reply
				continue
			}
			f.cache.put(key, reply, f.now())
			return reply, nil
		}
		if failure != nil {
			// An answer that has ended is still better than a failure.
			if known := f.cache.get(key); known == nil || !known.stale(f.now()) {
				f.cache.put(key, failure, f.now())
			}
			return failure, nil
		}
	}
	return nil, lastErr
}

// exchange asks one server, over TCP when the answer does not fit a datagram.
// What concerns only the way to that server is taken off the answer.
func exchange(ctx context.Context, query *miekg.Msg, server string) (*miekg.Msg, error) {
	question := query.Copy()
	question.Id = uint16(rand.Uint32())
	question.RecursionDesired = true
	client := &miekg.Client{Net: "udp", Timeout: upstreamTimeout, UDPSize: udpSize}
	reply, _, err := client.ExchangeContext(ctx, question, server)
	if err == nil && reply.Truncated {
		client.Net = "tcp"
		reply, _, err = client.ExchangeContext(ctx, question, server)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	if len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, question.Question[0].Name) || reply.Question[0].Qtype != question.Question[0].Qtype {
		return nil, fmt.Errorf("ask %s: answers another question", server)
	}
	kept := reply.Extra[:0]
	for _, record := range reply.Extra {
		if record.Header().Rrtype != miekg.TypeOPT {
			kept = append(kept, record)
		}
	}
	reply.Extra = kept
	return reply, nil
}

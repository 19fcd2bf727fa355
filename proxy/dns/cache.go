package dns

import (
	"sync"
	"time"

	miekg "github.com/miekg/dns"
	"k8s.io/utils/lru"
)

const (
	// cacheEntries and cacheLongest bound what is remembered of other zones.
	cacheEntries = 4096
	cacheLongest = 5 * time.Minute
	// failureLife is how long a SERVFAIL of an upstream is passed on, so that a
	// name that fails is not asked for with every query (RFC 2308, 7.1).
	failureLife = 5 * time.Second
	// staleLife is how long after its end an answer may still serve while no
	// upstream answers, and staleTTL what clients may keep it for (RFC 8767).
	staleLife = time.Hour
	staleTTL  = 30
	// An answer that is asked for popular times is fetched again before it
	// ends, when less than this part of its life is left.
	popular        = 2
	prefetchedPart = 10
)

// cacheKey is a question. Answers with and without signatures differ.
type cacheKey struct {
	name   string
	qtype  uint16
	secure bool
}

// entry is an answer with its times. Its reply is never changed.
type entry struct {
	reply     *miekg.Msg
	at, until time.Time

	mu       sync.Mutex // guards what follows
	hits     int
	fetching bool
}

// cache remembers answers of upstreams for as long as they allow.
type cache struct{ entries *lru.Cache }

func newCache() *cache { return &cache{lru.New(cacheEntries)} }

func (c *cache) get(key cacheKey) *entry {
	if value, found := c.entries.Get(key); found {
		return value.(*entry)
	}
	return nil
}

// put remembers a reply if it may be.
func (c *cache) put(key cacheKey, reply *miekg.Msg, now time.Time) {
	if life := lifeOf(reply); life > 0 {
		c.entries.Add(key, &entry{reply: reply, at: now, until: now.Add(life)})
	}
}

// clear forgets everything.
func (c *cache) clear() { c.entries.Clear() }

func (c *cache) len() int { return c.entries.Len() }

// lifeOf is how long a reply may be remembered, 0 for not at all.
func lifeOf(reply *miekg.Msg) time.Duration {
	if reply.Truncated {
		return 0
	}
	switch reply.Rcode {
	case miekg.RcodeServerFailure:
		return failureLife
	case miekg.RcodeSuccess, miekg.RcodeNameError:
	default:
		return 0
	}
	shortest, negative := cacheLongest, len(reply.Answer) == 0 || reply.Rcode == miekg.RcodeNameError
	bounded := false
	for _, section := range [][]miekg.RR{reply.Answer, reply.Ns} {
		for _, record := range section {
			life := time.Duration(record.Header().Ttl) * time.Second
			if soa, is := record.(*miekg.SOA); is {
				// How long a negative answer lasts (RFC 2308, 5).
				life, bounded = min(life, time.Duration(soa.Minttl)*time.Second), true
			}
			shortest = min(shortest, life)
		}
	}
	if negative && !bounded {
		return 0
	}
	return shortest
}

// fresh says whether the entry may answer, and whether it is this caller's to
// fetch it again in the background.
func (e *entry) fresh(now time.Time) (usable, refresh bool) {
	if !now.Before(e.until) {
		return false, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hits++
	if e.hits < popular || e.fetching || e.reply.Rcode == miekg.RcodeServerFailure || e.until.Sub(now) > e.until.Sub(e.at)/prefetchedPart {
		return true, false
	}
	e.fetching = true
	return true, true
}

// stale says whether the entry may answer because nobody else does.
func (e *entry) stale(now time.Time) bool {
	return now.Sub(e.until) < staleLife && e.reply.Rcode != miekg.RcodeServerFailure
}

// answer is the entry as a reply to the query, its records as much older as
// they are; an entry that has ended gets a short life.
func (e *entry) answer(query *miekg.Msg, now time.Time) *miekg.Msg {
	reply := e.reply.Copy()
	reply.Id, reply.Question = query.Id, query.Question
	age := uint32(now.Sub(e.at).Seconds())
	ended := !now.Before(e.until)
	for _, section := range [][]miekg.RR{reply.Answer, reply.Ns, reply.Extra} {
		for _, record := range section {
			if header := record.Header(); ended {
				header.Ttl = staleTTL
			} else {
				header.Ttl -= min(age, header.Ttl)
			}
		}
	}
	return reply
}

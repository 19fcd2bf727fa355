package dns

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	miekg "github.com/miekg/dns"
)

// loops finds servers that forward to us: each is asked for a name that nobody
// else knows, and whose question comes back was forwarded by it.
type loops struct {
	mu sync.Mutex // guards what follows
	// asked are the servers by the names they were asked for.
	asked map[string]string
	found func(server string)
}

func newLoops(found func(server string)) *loops {
	return &loops{asked: map[string]string{}, found: found}
}

// probe asks a server, whose answer does not matter.
func (l *loops) probe(ctx context.Context, server string) {
	name := strconv.FormatUint(rand.Uint64(), 36) + "." + strconv.FormatUint(rand.Uint64(), 36) + "."
	l.mu.Lock()
	l.asked[name] = server
	l.mu.Unlock()
	query := new(miekg.Msg)
	query.SetQuestion(name, miekg.TypeHINFO)
	_, _ = exchange(ctx, query, server)
	l.mu.Lock()
	delete(l.asked, name)
	l.mu.Unlock()
}

// seen says whether a question is one of ours that came back.
func (l *loops) seen(question miekg.Question) bool {
	if question.Qtype != miekg.TypeHINFO {
		return false
	}
	l.mu.Lock()
	server, ours := l.asked[strings.ToLower(question.Name)]
	l.mu.Unlock()
	if ours {
		l.found(server)
	}
	return ours
}

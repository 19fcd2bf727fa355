package dns

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/skiff-run/skiff/internal/testenv"
)

// teacher is a server on loopback whose answers a test sets.
type teacher struct {
	address string
	asked   atomic.Int32
	mu      sync.Mutex // guards reply
	reply   func(*miekg.Msg)
}

// says sets what the server answers from now on.
func (s *teacher) says(reply func(*miekg.Msg)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = reply
}

func newTeacher(t *testing.T, reply func(*miekg.Msg)) *teacher {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &teacher{address: packets.LocalAddr().String(), reply: reply}
	server := &miekg.Server{PacketConn: packets, Handler: miekg.HandlerFunc(func(w miekg.ResponseWriter, query *miekg.Msg) {
		s.asked.Add(1)
		answer := new(miekg.Msg)
		answer.SetReply(query)
		s.mu.Lock()
		say := s.reply
		s.mu.Unlock()
		if say != nil { // nil: no answer at all
			say(answer)
			_ = w.WriteMsg(answer)
		}
	})}
	started, ended := make(chan struct{}), make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	return s
}

func answers(last byte, ttl uint32) func(*miekg.Msg) {
	return func(m *miekg.Msg) {
		m.Answer = []miekg.RR{&miekg.A{Hdr: miekg.RR_Header{Name: m.Question[0].Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET, Ttl: ttl}, A: net.IPv4(192, 0, 2, last)}}
	}
}

func denies(rcode int, ttl uint32) func(*miekg.Msg) {
	return func(m *miekg.Msg) {
		m.Rcode = rcode
		if rcode != miekg.RcodeServerFailure {
			m.Ns = []miekg.RR{&miekg.SOA{Hdr: miekg.RR_Header{Name: "org.", Rrtype: miekg.TypeSOA, Class: miekg.ClassINET, Ttl: 600}, Ns: "a.", Mbox: "b.", Minttl: ttl}}
		}
	}
}

// clock is moved by hand.
type clock struct{ nanoseconds atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1_000_000, c.nanoseconds.Load()) }
func (c *clock) pass(d time.Duration) { c.nanoseconds.Add(int64(d)) }
func (s *Server) withClock(c *clock)  { s.forward.now = c.now }
func a(s *Server) *miekg.Msg          { return ask(s, "www.example.org", miekg.TypeA) }
func seconds(n int) time.Duration     { return time.Duration(n) * time.Second }
func first(m *miekg.Msg) (string, uint32) {
	if len(m.Answer) == 0 {
		return miekg.RcodeToString[m.Rcode], 0
	}
	return m.Answer[0].(*miekg.A).A.String(), m.Answer[0].Header().Ttl
}

func TestTheCacheKeepsWhatItMayAndNoLonger(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		says        func(*miekg.Msg)
		kept, ended time.Duration
	}{
		"an answer for its life":                 {answers(1, 60), seconds(59), seconds(61)},
		"an answer not longer than five minutes": {answers(1, 86400), seconds(299), seconds(301)},
		"a denial as long as its zone says":      {denies(miekg.RcodeNameError, 20), seconds(19), seconds(21)},
		"that there is no such record":           {denies(miekg.RcodeSuccess, 20), seconds(19), seconds(21)},
		"a failure for seconds":                  {denies(miekg.RcodeServerFailure, 0), seconds(4), seconds(6)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := newTeacher(t, tc.says)
			s, c := newTestServer(t, upstream.address), &clock{}
			s.withClock(c)
			a(s)
			once := upstream.asked.Load()
			c.pass(tc.kept)
			// Popular answers are fetched before their end, and that is another test:
			// this question is asked once only in the whole life.
			a(s)
			if got := upstream.asked.Load(); got != once {
				t.Errorf("asked again after %s", tc.kept)
			}
			c.pass(tc.ended - tc.kept)
			a(s)
			if got := upstream.asked.Load(); got == once {
				t.Errorf("not asked again after %s", tc.ended)
			}
		})
	}
}

func TestAPopularAnswerIsFetchedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	upstream := newTeacher(t, answers(1, 100))
	s, c := newTestServer(t, upstream.address), &clock{}
	s.withClock(c)
	for range 3 {
		a(s)
	}
	upstream.says(answers(2, 100))
	c.pass(seconds(95))
	if got, ttl := first(a(s)); got != "192.0.2.1" || ttl != 5 {
		t.Errorf("got %s for %d s", got, ttl)
	}
	testenv.Eventually(t, 10*time.Second, func() bool { got, _ := first(a(s)); return got == "192.0.2.2" }, "the new answer is not there")
	if got := upstream.asked.Load(); got != 2 {
		t.Errorf("asked %d times, want 2", got)
	}
	s.forward.close()
}

func TestAnAnswerThatHasEndedServesWhileNobodyAnswers(t *testing.T) {
	t.Parallel()
	upstream := newTeacher(t, answers(1, 60))
	s, c := newTestServer(t, upstream.address), &clock{}
	s.withClock(c)
	a(s)
	upstream.says(denies(miekg.RcodeServerFailure, 0))
	c.pass(seconds(120))
	for range 2 {
		if got, ttl := first(a(s)); got != "192.0.2.1" || ttl != staleTTL {
			t.Errorf("got %s for %d s", got, ttl)
		}
	}
	c.pass(2 * time.Hour)
	if got, _ := first(a(s)); got != "SERVFAIL" {
		t.Errorf("after two hours: %s", got)
	}
}

func TestServersThatFailAreAskedLast(t *testing.T) {
	t.Parallel()
	dead, living := newTeacher(t, nil), newTeacher(t, answers(1, 0))
	s := newTestServer(t, dead.address, living.address)
	s.forward.servers.Load().all.now = (&clock{}).now // no pause ends
	for range maxFails + 2 {
		if got, _ := first(a(s)); got != "192.0.2.1" {
			t.Fatalf("got %s", got)
		}
	}
	if got := dead.asked.Load(); got != maxFails {
		t.Errorf("the one that does not answer was asked %d times, want %d", got, maxFails)
	}
	u := s.forward.servers.Load().all
	u.judge(u.servers[0], nil)
	if got := u.inOrder(); got[0].address != dead.address {
		t.Error("a server that answers again is not asked first again")
	}
}

func TestStubDomainsHaveServersOfTheirOwn(t *testing.T) {
	t.Parallel()
	world, corp, lab := newTeacher(t, answers(1, 0)), newTeacher(t, answers(2, 0)), newTeacher(t, answers(3, 0))
	base := newTestServer(t, world.address)
	config := base.config
	config.StubDomains = map[string][]string{"corp.example": {corp.address}, "lab.corp.example.": {lab.address}}
	s, err := NewServer(config, example())
	if err != nil {
		t.Fatal(err)
	}
	s.Ready()
	for name, want := range map[string]string{
		"www.example": "192.0.2.1", "mycorp.example": "192.0.2.1", "corp.example": "192.0.2.2", "WWW.Corp.example": "192.0.2.2", "a.lab.corp.example": "192.0.2.3",
	} {
		if got, _ := first(ask(s, name, miekg.TypeA)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestAServerThatForwardsToUsIsNotAsked(t *testing.T) {
	t.Parallel()
	var s *Server
	made := make(chan struct{})
	// A forwarder that knows nobody but us.
	circle := newTeacher(t, func(m *miekg.Msg) {
		<-made
		query := new(miekg.Msg)
		query.SetQuestion(m.Question[0].Name, m.Question[0].Qtype)
		m.Rcode = s.answer(query).Rcode
	})
	honest := newTeacher(t, answers(1, 0))
	s = newTestServer(t, circle.address, honest.address)
	close(made)
	s.watchForLoops()
	testenv.Eventually(t, 10*time.Second, func() bool {
		order := s.forward.servers.Load().all.inOrder()
		return len(order) == 1 && order[0].address == honest.address
	}, "the circle is not found")
	s.forward.close()
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, newTeacher(t, func(m *miekg.Msg) {
		answers(1, 60)(m)
		m.SetEdns0(4096, false)
	}).address)
	query := new(miekg.Msg)
	query.SetQuestion("www.example.org.", miekg.TypeA)
	if reply := s.answer(query); reply.IsEdns0() != nil {
		t.Error("a client without extensions gets the upstream's")
	}
	query.SetEdns0(1232, false)
	query.IsEdns0().SetVersion(1)
	if reply := s.answer(query); reply.Rcode != miekg.RcodeBadVers {
		t.Errorf("an unknown version: %s", miekg.RcodeToString[reply.Rcode])
	}
}

func TestOtherServersAreAskedAfterAReload(t *testing.T) {
	t.Parallel()
	before, after, corp := newTeacher(t, answers(1, 60)), newTeacher(t, answers(2, 60)), newTeacher(t, answers(3, 60))
	s := newTestServer(t, before.address)
	wants := func(name, address string) {
		t.Helper()
		if got, _ := first(ask(s, name, miekg.TypeA)); got != address {
			t.Errorf("%s: got %s, want %s", name, got, address)
		}
	}
	wants("www.example.org", "192.0.2.1")
	wants("www.corp.example", "192.0.2.1")
	config := s.config
	config.Upstreams, config.StubDomains = []string{after.address}, map[string][]string{"corp.example": {corp.address}}
	s.Forward(config)
	wants("www.example.org", "192.0.2.2")
	wants("www.corp.example", "192.0.2.3")
}

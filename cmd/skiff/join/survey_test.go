package join

import (
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/operator"
)

// machine is a control machine that is well; change makes it less so.
func machine(name, id string, change func(*Machine)) Machine {
	now := time.Now()
	m := Machine{
		Member: &operator.Member{ID: id, Address: name + ".example:6444", Voter: true, Reachable: true},
		Status: &operator.Status{
			MemberID: id, NodeName: name, Checks: map[string]string{"etcd-0": "ok"},
			Certificates: []operator.Certificate{{Name: "apiserver", NotAfter: now.Add(300 * 24 * time.Hour)}},
		},
	}
	change(&m)
	return m
}

func well(*Machine) {}

func leads(m *Machine) { m.Member.Leader = true }

func TestWhatIsWrongIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		third  func(*Machine)
		leader func(*Machine)
		want   string // empty: healthy
	}{
		"all is well":               {well, leads, ""},
		"a member that catches up":  {func(m *Machine) { m.Member.Voter = false }, leads, "c3 does not vote yet"},
		"a member with a complaint": {func(m *Machine) { m.Member.Problem = "the disk is slow" }, leads, "c3: the disk is slow"},
		"an API server that is down": {func(m *Machine) { m.Status, m.Error = nil, "its API server does not answer" }, leads,
			"c3.example:6444: its API server does not answer"},
		"a check that fails":         {func(m *Machine) { m.Status.Checks["scheduler"] = "not running" }, leads, "c3: scheduler: not running"},
		"a certificate that ends":    {func(m *Machine) { m.Status.Certificates[0].NotAfter = time.Now().Add(time.Hour) }, leads, "c3: certificate apiserver ends"},
		"a certificate in trouble":   {func(m *Machine) { m.Status.Certificates[0].Problem = "another key" }, leads, "c3: certificate apiserver: another key"},
		"no leader":                  {well, well, "the store has no leader: 3 of 3 voters answer, 2 are needed"},
		"a machine that was removed": {func(m *Machine) { m.Member = nil }, leads, "c3 runs but is not a member"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Survey{Machines: []Machine{machine("c1", "aaaa1111", tc.leader), machine("c2", "aaaa2222", well), machine("c3", "bbbb3333", tc.third)}}
			s.judge(time.Now())
			if s.Healthy != (tc.want == "") || (s.Verdict() == nil) != s.Healthy {
				t.Errorf("healthy: %v, problems %q", s.Healthy, s.Problems)
			}
			if !strings.Contains(strings.Join(s.Problems, "\n"), tc.want) {
				t.Errorf("problems %q do not mention %q", s.Problems, tc.want)
			}
		})
	}
}

func TestAMemberIsFoundByWhatPeopleCallIt(t *testing.T) {
	t.Parallel()
	s := Survey{Machines: []Machine{machine("c1", "aaaa1111", well), machine("c2", "aaaa2222", well), machine("c3", "bbbb3333", func(m *Machine) { m.Status = nil })}}
	for text, want := range map[string]string{
		"c1": "aaaa1111", "aaaa2222": "aaaa2222", "aaaa1": "aaaa1111", "c3.example:6444": "bbbb3333", "c3.example": "bbbb3333", "bbbb": "bbbb3333",
	} {
		if got, err := s.Resolve(text); err != nil || got.Member.ID != want {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"c9": "no member", "aaaa": "beginning of 2", "bb": "no member", "": "no member"} {
		if got, err := s.Resolve(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", text, got, err, want)
		}
	}
}

package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/operator"
)

// surveyPatience bounds how long one control machine is waited for.
const surveyPatience = 5 * time.Second

// Survey is the state of a cluster as far as it could be learned.
type Survey struct {
	// Healthy: the store has a leader and every voter, every machine's checks
	// pass and no certificate is in trouble.
	Healthy bool `json:"healthy"`
	// Problems say what is wrong, the worst first.
	Problems []string `json:"problems,omitempty"`
	// Machines are the control machines.
	Machines []Machine `json:"machines"`
	// ReadyNodes of Nodes are Ready; both are -1 when that cannot be asked.
	Nodes      int `json:"nodes"`
	ReadyNodes int `json:"readyNodes"`
}

// Machine is one control machine: what the store says of its member, and what
// it says of itself.
type Machine struct {
	// Member is nil for a machine that answers but is not in the list of members.
	Member *operator.Member `json:"member,omitempty"`
	// Status is nil for a machine that does not answer.
	Status *operator.Status `json:"status,omitempty"`
	// Error is why it does not answer.
	Error string `json:"error,omitempty"`
}

// Name is what people call the machine.
func (m *Machine) Name() string {
	switch {
	case m.Status != nil && m.Status.NodeName != "":
		return m.Status.NodeName
	case m.Member != nil:
		return m.Member.Address
	}
	return "unknown"
}

// LookAround asks every control machine for its state. The error is that of
// the first one asked, when nobody answers.
func (a *Administrator) LookAround(ctx context.Context) (*Survey, error) {
	first, err := a.patiently(ctx)
	if err != nil {
		return nil, err
	}
	survey := &Survey{Nodes: -1, ReadyNodes: -1}
	members, membersErr := a.membersPatiently(ctx)
	answers := a.askAll(ctx, first, addresses(first, members))
	for i := range members {
		machine := Machine{Member: &members[i], Error: "its API server does not answer"}
		for _, answer := range answers {
			if answer.status != nil && answer.status.MemberID == members[i].ID {
				machine.Status, machine.Error = answer.status, ""
			}
		}
		survey.Machines = append(survey.Machines, machine)
	}
	for _, answer := range answers {
		known := answer.status != nil && slices.ContainsFunc(members, func(m operator.Member) bool { return m.ID == answer.status.MemberID })
		if answer.status != nil && !known {
			survey.Machines = append(survey.Machines, Machine{Status: answer.status})
		}
	}
	if membersErr != nil {
		survey.Problems = append(survey.Problems, "the members of the store cannot be listed: "+membersErr.Error())
	}
	a.countNodes(ctx, survey)
	survey.judge(time.Now())
	return survey, nil
}

func (a *Administrator) patiently(ctx context.Context) (*operator.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	return a.Status(ctx)
}

func (a *Administrator) membersPatiently(ctx context.Context) ([]operator.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	return a.Members(ctx)
}

type surveyed struct {
	status *operator.Status
	err    error
}

// addresses are host:port of every API server: those that serve now, as the
// first one asked knows them, and those of members that do not.
func addresses(first *operator.Status, members []operator.Member) []string {
	found := append([]string{first.Address}, first.ControlAddresses...)
	_, port, err := net.SplitHostPort(first.Address)
	if err == nil {
		for _, member := range members {
			if host, _, err := net.SplitHostPort(member.Address); err == nil {
				found = append(found, net.JoinHostPort(host, port))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// askAll asks each API server for its state, all at once.
func (a *Administrator) askAll(ctx context.Context, first *operator.Status, addresses []string) []surveyed {
	answers := make([]surveyed, len(addresses))
	var asking sync.WaitGroup
	for i, address := range addresses {
		if address == first.Address {
			answers[i].status = first
			continue
		}
		asking.Go(func() {
			var there *Administrator
			if there, answers[i].err = a.At(address); answers[i].err == nil {
				if answers[i].status, answers[i].err = there.patiently(ctx); answers[i].err != nil {
					answers[i].status = nil
				}
			}
		})
	}
	asking.Wait()
	return answers
}

// countNodes counts nodes as the API server remembers them: it answers
// without a majority too.
func (a *Administrator) countNodes(ctx context.Context, survey *Survey) {
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	nodes, err := a.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		survey.Problems = append(survey.Problems, "the nodes cannot be listed: "+err.Error())
		return
	}
	survey.Nodes, survey.ReadyNodes = len(nodes.Items), 0
	for _, node := range nodes.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				survey.ReadyNodes++
			}
		}
	}
}

// renewalDue is how long before its end a certificate should have been renewed.
const renewalDue = 30 * 24 * time.Hour

// judge finds what is wrong.
func (s *Survey) judge(now time.Time) {
	voters, reachable, leader := 0, 0, false
	var problems []string
	for _, machine := range s.Machines {
		name := machine.Name()
		if m := machine.Member; m != nil {
			leader = leader || m.Leader
			if m.Voter {
				voters++
				if m.Reachable {
					reachable++
				}
			} else {
				problems = append(problems, name+" does not vote yet: it catches up")
			}
			if m.Problem != "" {
				problems = append(problems, name+": "+m.Problem)
			}
		} else {
			problems = append(problems, name+" runs but is not a member of the store")
		}
		problems = append(problems, machine.problems(now)...)
	}
	if voters > 0 && !leader {
		s.Problems = append(s.Problems, fmt.Sprintf("the store has no leader: %d of %d voters answer, %d are needed; nothing can be written. If the others are lost for good see \"skiff recover --help\"",
			reachable, voters, voters/2+1))
	}
	s.Problems = append(s.Problems, problems...)
	s.Healthy = len(s.Problems) == 0 && voters > 0
}

// problems are those a machine has, whatever the store says.
func (m *Machine) problems(now time.Time) []string {
	name := m.Name()
	if m.Status == nil {
		return []string{name + ": " + m.Error}
	}
	var found []string
	for check, result := range m.Status.Checks {
		if result != "ok" {
			found = append(found, fmt.Sprintf("%s: %s: %s", name, check, result))
		}
	}
	slices.Sort(found)
	for _, certificate := range m.Status.Certificates {
		switch {
		case certificate.Problem != "":
			found = append(found, fmt.Sprintf("%s: certificate %s: %s", name, certificate.Name, certificate.Problem))
		case certificate.NotAfter.Sub(now) < renewalDue:
			found = append(found, fmt.Sprintf("%s: certificate %s ends %s and was not renewed: see \"skiff pki check\" there", name, certificate.Name, certificate.NotAfter.Format(time.DateOnly)))
		}
	}
	return found
}

// Resolve finds the member a person means: by its id, the beginning of it, its
// node's name, or its address.
func (s *Survey) Resolve(text string) (*Machine, error) {
	var found []*Machine
	for i := range s.Machines {
		machine := &s.Machines[i]
		if machine.Member == nil {
			continue
		}
		// Of an address that is none the host is empty, which nobody types.
		host, _, _ := net.SplitHostPort(machine.Member.Address)
		named := machine.Status != nil && machine.Status.NodeName == text
		if named || machine.Member.ID == text || machine.Member.Address == text || host == text {
			return machine, nil
		}
		if len(text) >= 4 && strings.HasPrefix(machine.Member.ID, text) {
			found = append(found, machine)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("%q is no member of the store: give an id, a node's name or an address that \"skiff member list\" shows", text)
	}
	return nil, fmt.Errorf("%q is the beginning of %d ids: give more of it", text, len(found))
}

// errNotHealthy ends a status command whose picture is not all well.
var errNotHealthy = errors.New("the cluster is not healthy, see above")

// Verdict is an error for a cluster that is not healthy.
func (s *Survey) Verdict() error {
	if s.Healthy {
		return nil
	}
	return errNotHealthy
}

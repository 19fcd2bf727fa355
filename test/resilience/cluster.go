package resilience

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/test/host"
)

// Cluster is what faults mistreat.
type Cluster struct {
	// ctx ends the daemons.
	ctx     context.Context
	Network *host.Network
	Members []*Member
	// Servers are the members' API servers, in the same order.
	Servers []*Server
	// LongestCut and LongestPause bound how long faults last.
	LongestCut, LongestPause time.Duration
}

func (c *Cluster) server(m *Member) *Server {
	for i, other := range c.Members {
		if other == m {
			return c.Servers[i]
		}
	}
	return nil
}

// leader is the member that most lately said it leads, or any if none answers.
func (c *Cluster) leader(ctx context.Context, random *rand.Rand) *Member {
	for i, m := range c.Members {
		one, cancel := context.WithTimeout(ctx, time.Second)
		status, err := c.Servers[i].status(one)
		cancel()
		if err == nil && status.Store.Leader {
			return m
		}
	}
	return c.one(random)
}

// status is what a member says of itself; it answers without a majority.
func (s *Server) status(ctx context.Context) (operator.Status, error) {
	var status operator.Status
	_, err := s.request(ctx, http.MethodGet, operator.StatusPath, nil, nil, &status)
	return status, err
}

// ready asks the server whether it serves.
func (s *Server) ready(ctx context.Context) error {
	response, _, err := s.send(ctx, http.MethodGet, "/readyz", nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", s.Name, response.Status)
	}
	return nil
}

// addMember adds a member to the store.
func (s *Server) addMember(ctx context.Context, id, address string) error {
	_, err := s.request(ctx, http.MethodPost, operator.MembersPath, nil, operator.MemberRequest{ID: id, Address: address}, &operator.MemberList{})
	return err
}

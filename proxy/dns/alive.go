package dns

import (
	"context"
	"fmt"
	"net/netip"

	miekg "github.com/miekg/dns"
)

// Alive asks the server for the cluster's domain, as a pod would, and returns an
// error when it does not answer until ctx ends. It belongs to the network
// namespace of the calling thread.
func (s *Server) Alive(ctx context.Context) error {
	_, err := s.askSelf(ctx)
	return err
}

// Serves returns an error while the server does not answer for the cluster's
// domain: it is not there, or knows too little yet.
func (s *Server) Serves(ctx context.Context) error {
	code, err := s.askSelf(ctx)
	if err == nil && code != miekg.RcodeSuccess {
		err = fmt.Errorf("cluster DNS answers %s", miekg.RcodeToString[code])
	}
	return err
}

func (s *Server) askSelf(ctx context.Context) (code int, err error) {
	query := new(miekg.Msg).SetQuestion(s.zone.domain, miekg.TypeSOA)
	server := netip.AddrPortFrom(s.config.Address, 53).String()
	reply, _, err := new(miekg.Client).ExchangeContext(ctx, query, server)
	if err != nil {
		return 0, fmt.Errorf("ask cluster DNS at %s: %w", server, err)
	}
	return reply.Rcode, nil
}

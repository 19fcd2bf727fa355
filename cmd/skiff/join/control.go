package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
)

// catchUpLimit bounds how long a new member may take until it votes: it gets
// the whole store first.
const catchUpLimit = 10 * time.Minute

// unreachableLimit is how long the others may fail to reach a new member: a machine
// that is slow or busy takes some seconds for a handshake.
const unreachableLimit = 45 * time.Second

// becomeControl gets the authorities, makes this machine's own certificates,
// adds its member to the store, starts the daemons, and waits until the member
// votes.
func (j *joining) becomeControl(ctx context.Context) error {
	control, agent := j.plan.Control, j.plan.Agent
	id, err := raftstore.EnsureMember(filepath.Join(control.DataDir, "store"), control.MemberID, true)
	if err != nil {
		return err
	}
	j.machine.MemberID = id
	if err := j.options.SaveMachine(j.machine); err != nil {
		return err
	}
	data, err := j.cluster.request(ctx, operator.JoinControlPath, operator.JoinRequest{NodeName: agent.NodeName, Address: agent.NodeIP, MemberID: id})
	if err != nil {
		return err
	}
	var grant operator.ControlGrant
	if err := json.Unmarshal(data, &grant); err != nil {
		return fmt.Errorf("read the cluster's answer: %w", err)
	}
	if err := pki.Install(j.options.PKI(), grant.Files); err != nil {
		return err
	}
	if len(grant.Encryption) > 0 {
		const name = "encryption.yaml"
		if err := pki.Install(j.options.PKI(), map[string][]byte{name: grant.Encryption}); err != nil {
			return err
		}
		if err := j.options.Change(j.plan, func(control *config.Control, _ *config.Agent, _ *config.Proxy) {
			control.EncryptionConfig = filepath.Join(j.options.PKI(), name)
		}); err != nil {
			return err
		}
		if err := j.options.Save(j.plan); err != nil {
			return err
		}
	}
	if err := j.options.Prepare(j.plan); err != nil {
		return err
	}
	others, err := NewAdministratorAt(j.options.AdminKubeconfig(), j.cluster.terms.ControlAddresses)
	if err != nil {
		return err
	}
	j.added = true
	if err := others.AddMember(ctx, id, control.Peer()); err != nil {
		return fmt.Errorf("add this machine to the store: %w", err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := j.watchReach(ctx, others); err != nil {
			fail(err)
		}
	}()
	defer func() {
		fail(nil)
		<-watching
	}()
	if err := j.options.Start(ctx, j.plan, j.out); err != nil {
		return err
	}
	return j.untilVoter(ctx, others)
}

// watchReach returns an error when the store's leader cannot reach this
// machine's member for long: it would wait for ever. The time counts from when
// the member listens, for which a slow machine may need more.
func (j *joining) watchReach(ctx context.Context, others *Administrator) error {
	const every = 500 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	reached := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		members, err := others.Members(ctx)
		if err != nil {
			// Whether the cluster answers is another question.
			reached = time.Now()
			continue
		}
		for _, member := range members {
			switch {
			case member.ID != j.machine.MemberID:
			case member.Reachable || refused(ctx, member.Address):
				reached = time.Now()
			case time.Since(reached) > unreachableLimit:
				return fmt.Errorf("the other control machines do not reach this one at %s: let TCP port %d through the firewalls between control machines, or give --node-ip: %s",
					member.Address, j.plan.Control.PeerPort, member.Problem)
			}
		}
	}
}

// refused says that nobody listens yet at an address of this machine.
func refused(ctx context.Context, address string) bool {
	connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = connection.Close() // nothing was sent
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func (j *joining) untilVoter(ctx context.Context, others *Administrator) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpLimit, fmt.Errorf("not within %s", catchUpLimit))
	defer cancel()
	if err := eventually(ctx, func() (bool, string, error) {
		members, err := others.Members(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		for _, member := range members {
			if member.ID == j.machine.MemberID {
				return member.Voter, fmt.Sprintf("%d revisions behind; %s", member.Lag, member.Problem), nil
			}
		}
		return false, "", fmt.Errorf("member %s was removed from the store meanwhile: join again", j.machine.MemberID)
	}); err != nil {
		return fmt.Errorf("wait until this machine's member of the store votes: %w", err)
	}
	fmt.Fprintf(j.out, "  %-12s member %s votes\n", "store", j.machine.MemberID)
	return nil
}

// leave removes a member if it is in the store.
func leave(ctx context.Context, others *Administrator, memberID string) error {
	members, err := others.Members(ctx)
	if err != nil {
		return fmt.Errorf("list the store's members: %w", err)
	}
	for _, member := range members {
		if member.ID != memberID {
			continue
		}
		if err := others.RemoveMember(ctx, memberID); err != nil {
			return fmt.Errorf("remove member %s from the store: %w", memberID, err)
		}
	}
	return nil
}

// forgetNode deletes a node whose agent has ended: a living one would come back.
func forgetNode(ctx context.Context, others *Administrator, nodeName string) error {
	err := others.Client.CoreV1().Nodes().Delete(ctx, nodeName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", nodeName, err)
	}
	return nil
}

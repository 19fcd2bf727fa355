package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
)

// catchUpLimit bounds how long a new member may take until it votes: it gets
// the whole store first.
const catchUpLimit = 10 * time.Minute

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
		control.EncryptionConfig = filepath.Join(j.options.PKI(), name)
		if err := errors.Join(pki.Install(j.options.PKI(), map[string][]byte{name: grant.Encryption}), j.options.Save(j.plan)); err != nil {
			return err
		}
	}
	if err := j.options.Prepare(j.plan); err != nil {
		return err
	}
	others, err := NewAdministrator(j.options.AdminKubeconfig(), j.cluster.terms.ControlAddresses...)
	if err != nil {
		return err
	}
	j.added = true
	if err := others.AddMember(ctx, id, control.Peer()); err != nil {
		return fmt.Errorf("add this machine to the store: %w", err)
	}
	if err := j.options.Start(ctx, j.plan, j.out); err != nil {
		return j.afterStart(ctx, others, err)
	}
	return j.untilVoter(ctx, others)
}

// afterStart adds to a failed start what the others say of this member.
func (j *joining) afterStart(ctx context.Context, others *Administrator, cause error) error {
	members, err := others.Members(context.WithoutCancel(ctx))
	if err != nil {
		return cause
	}
	for _, member := range members {
		if member.ID == j.machine.MemberID && member.Problem != "" {
			return fmt.Errorf("%w\nThe store's leader says of this machine, %s: %s\nLet TCP port %d through the firewalls between the control machines", cause, member.Address, member.Problem, j.plan.Control.PeerPort)
		}
	}
	return cause
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

// leaveStore removes what a join that failed has put into the cluster.
func (j *joining) leaveStore(ctx context.Context) error {
	others, err := NewAdministrator(j.options.AdminKubeconfig(), j.cluster.terms.ControlAddresses...)
	if err != nil {
		return err
	}
	return leave(ctx, others, j.machine.MemberID, j.plan.Agent.NodeName)
}

// leave removes a member that is in the store, and its node.
func leave(ctx context.Context, others *Administrator, memberID, nodeName string) error {
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
	err = others.Client.CoreV1().Nodes().Delete(ctx, nodeName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", nodeName, err)
	}
	return nil
}

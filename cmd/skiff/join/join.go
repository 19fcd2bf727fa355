package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

// giveUpLimit bounds how long a failed join may take to undo what it did.
const giveUpLimit = 2 * time.Minute

// joining is one machine on its way into a cluster.
type joining struct {
	options *up.Options
	target  *Target
	out     io.Writer

	cluster *cluster
	machine up.Machine
	plan    *up.Plan
	// added is true once the store may know this machine.
	added bool
}

// Join makes this machine part of the cluster that the target names, in the
// role its token is for. A machine that has joined already is only started if
// need be. After an error nothing of the attempt is left.
func Join(ctx context.Context, o *up.Options, target Target, out io.Writer) error {
	if _, err := target.check(); err != nil {
		return err
	}
	// What a control machine needs besides is asked when the token has told the role.
	if err := o.Check(operator.Worker); err != nil {
		return err
	}
	j := &joining{options: o, target: &target, out: out}
	machine, err := o.Machine()
	if err != nil {
		return err
	}
	if machine != nil {
		j.machine = *machine
		if machine.CAHash != target.CAHash {
			return fmt.Errorf("this machine belongs to the cluster %s, not to %s: \"skiff reset --yes\" takes it out of that one", machine.CAHash, target.CAHash)
		}
		if !machine.Joining {
			return j.again(ctx)
		}
	} else if err := empty(o.Layout); err != nil {
		return err
	}
	if j.cluster, err = discover(ctx, &target); err != nil {
		return err
	}
	if err := j.prepare(ctx); err != nil {
		return err
	}
	if err := j.run(ctx); err != nil {
		return j.giveUp(ctx, err)
	}
	j.done()
	return nil
}

// again starts what has joined before.
func (j *joining) again(ctx context.Context) error {
	var err error
	if j.plan, err = j.options.Plan(j.machine.Role); err != nil {
		return err
	}
	if err := j.options.Start(ctx, j.plan, j.out); err != nil {
		return err
	}
	fmt.Fprintf(j.out, "\nThis machine had joined already, as %s.\n", title[j.machine.Role])
	return nil
}

// prepare decides what this machine will be; it changes nothing.
func (j *joining) prepare(ctx context.Context) error {
	o, terms := j.options, j.cluster.terms
	if j.machine.Joining && j.machine.Role != terms.Role {
		return fmt.Errorf("an unfinished join of this machine was as %s, the token is for %s: take a token of the same role, or \"skiff reset --yes\" first", title[j.machine.Role], title[terms.Role])
	}
	if err := o.Check(terms.Role); err != nil {
		return err
	}
	fmt.Fprintf(j.out, "Joining the cluster %s of %s as %s.\n", terms.Settings.ClusterName, j.cluster.address, title[terms.Role])
	if o.NodeIP == "" {
		address, err := j.cluster.route(ctx)
		if err != nil {
			return err
		}
		o.NodeIP, o.AddressFound = address, true
	}
	var err error
	if j.plan, err = o.Plan(terms.Role); err != nil {
		return err
	}
	if o.AddressFound && j.plan.Agent.NodeIP == o.NodeIP {
		fmt.Fprintf(j.out, "This machine's address is %s, by which it reaches %s; another one is chosen with --node-ip.\n", o.NodeIP, j.cluster.address)
	}
	if err := j.agree(terms); err != nil {
		return err
	}
	if !o.Running() {
		if err := j.plan.CheckPorts(); err != nil {
			return err
		}
	}
	j.machine = up.Machine{Role: terms.Role, Joining: true, CAHash: j.target.CAHash, ControlAddresses: terms.ControlAddresses}
	return nil
}

// agree sets what every machine of the cluster must have the same.
func (j *joining) agree(terms operator.Terms) error {
	s, addresses := terms.Settings, terms.ControlAddresses
	return j.options.Change(j.plan, func(control *config.Control, agent *config.Agent, proxy *config.Proxy) {
		control.ServiceCIDR, control.PodCIDR, control.NodeCIDRMaskSize = s.ServiceCIDR, s.PodCIDR, s.NodeCIDRMaskSize
		control.NodePortRange, control.ClusterDomain, control.ClusterName, control.Port = s.NodePortRange, s.ClusterDomain, s.ClusterName, s.Port
		agent.ClusterCIDR, proxy.ClusterCIDR = s.PodCIDR, s.PodCIDR
		agent.ClusterDomain, proxy.DNS.ClusterDomain = s.ClusterDomain, s.ClusterDomain
		agent.ClusterDNS, proxy.DNS.Address = []string{s.ClusterDNS}, s.ClusterDNS
		if terms.Role == operator.Control {
			control.Join = true
			own := net.JoinHostPort(j.plan.Control.AdvertiseAddress, strconv.Itoa(s.Port))
			addresses = append([]string{own}, slices.DeleteFunc(slices.Clone(terms.ControlAddresses), func(each string) bool { return each == own })...)
		}
		agent.ControlAddresses, proxy.ControlAddresses = addresses, addresses
	})
}

// run takes the steps, each of which may have been taken before.
func (j *joining) run(ctx context.Context) error {
	if err := j.options.SaveMachine(j.machine); err != nil {
		return err
	}
	if err := j.options.Save(j.plan); err != nil {
		return err
	}
	become := j.becomeWorker
	if j.machine.Role == operator.Control {
		become = j.becomeControl
	}
	if err := become(ctx); err != nil {
		return err
	}
	j.machine.Joining = false
	return j.options.SaveMachine(j.machine)
}

// becomeWorker gets certificates for keys made here and starts the daemons.
func (j *joining) becomeWorker(ctx context.Context) error {
	agent := j.plan.Agent
	request := operator.JoinRequest{NodeName: agent.NodeName, Address: agent.NodeIP}
	keys := map[*[]byte][]byte{}
	for _, each := range []*[]byte{&request.Agent, &request.AgentServer, &request.Proxy} {
		var err error
		if *each, keys[each], err = pki.NewRequest(agent.NodeName); err != nil {
			return fmt.Errorf("make key: %w", err)
		}
	}
	data, err := j.cluster.request(ctx, operator.JoinWorkerPath, request)
	if err != nil {
		return err
	}
	var grant operator.WorkerGrant
	if err := json.Unmarshal(data, &grant); err != nil {
		return fmt.Errorf("read the cluster's answer: %w", err)
	}
	if err := pki.Install(j.options.PKI(), map[string][]byte{
		"ca.crt": grant.CA, "agent-server.crt": grant.AgentServer, "agent-server.key": keys[&request.AgentServer],
	}); err != nil {
		return err
	}
	name, server := j.cluster.terms.Settings.ClusterName, "https://"+j.cluster.address
	if err := pki.WriteKubeconfig(agent.Kubeconfig, name, server, grant.CA, "system:node:"+agent.NodeName,
		pki.Pair{Certificate: grant.Agent, Key: keys[&request.Agent]}); err != nil {
		return err
	}
	if err := pki.WriteKubeconfig(j.plan.Proxy.Kubeconfig, name, server, grant.CA, "system:kube-proxy",
		pki.Pair{Certificate: grant.Proxy, Key: keys[&request.Proxy]}); err != nil {
		return err
	}
	return j.options.Start(ctx, j.plan, j.out)
}

// giveUp undoes what a failed join did and returns why it failed.
func (j *joining) giveUp(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpLimit)
	defer cancel()
	var others *Administrator
	if j.added {
		var err error
		others, err = NewAdministratorAt(j.options.AdminKubeconfig(), j.cluster.terms.ControlAddresses)
		// Before its daemon stops: a voter that is gone would count in the majority
		// that is needed to remove it.
		if err == nil {
			err = leave(ctx, others, j.machine.MemberID)
		}
		if err != nil {
			return errors.Join(cause, fmt.Errorf("the failed join is not undone, because this machine cannot be removed from the store, and its daemons keep running: "+
				"once the cluster answers run \"skiff join\" again, or \"skiff reset --yes\": %w", err))
		}
	}
	if err := up.Reset(ctx, j.options.Layout, io.Discard); err != nil {
		return errors.Join(cause, fmt.Errorf("the failed join is not undone; \"skiff reset --yes\" does it: %w", err))
	}
	if others != nil {
		if err := forgetNode(ctx, others, j.plan.Agent.NodeName); err != nil {
			return errors.Join(cause, fmt.Errorf("the join is undone, but for its node: delete it on a control machine with kubectl: %w", err))
		}
	}
	return fmt.Errorf("%w\nThe join is undone, nothing of it is left on this machine", cause)
}

// title is what a machine of the role is called.
var title = map[operator.Role]string{operator.Control: "a control machine", operator.Worker: "a worker"}

// done says what the operator has now.
func (j *joining) done() {
	fmt.Fprintf(j.out, "\nNode %s has joined as %s.\n", j.plan.Agent.NodeName, title[j.machine.Role])
}

// empty refuses a machine that has a cluster's files: they would be overwritten.
func empty(l up.Layout) error {
	// The package of skiff-control makes the folder of the store, the daemon what is in it.
	for _, path := range []string{filepath.Join(l.PKI(), "ca.crt"), l.AdminKubeconfig(), filepath.Join(l.Data(), "control", "store")} {
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("this machine has a cluster of its own (%s is there): \"skiff reset --yes\" removes it for good", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

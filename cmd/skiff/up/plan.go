package up

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// Plan is what Start will run: the configurations of this machine's daemons, for
// whoever prepares it to read, and to complete by Change.
type Plan struct {
	Control *config.Control
	Agent   *config.Agent
	Proxy   *config.Proxy
	layers
}

// Plan merges defaults, files, options, drop-ins and environment for a machine
// of the role. The daemons will read what Save writes, with the drop-ins over
// it: options that a drop-in contradicts are an error.
func (o *Options) Plan(role operator.Role) (*Plan, error) {
	l, err := o.layers()
	if err != nil {
		return nil, err
	}
	l.base.role, l.effective.role = role, role
	if err := validate(l.effective); err != nil {
		return nil, err
	}
	if err := o.unchanged(l, "the flags given", o.override); err != nil {
		return nil, err
	}
	return &Plan{Control: l.effective.control, Agent: l.effective.agent, Proxy: l.effective.proxy, layers: l}, nil
}

// ownWay are fields in which a drop-in may differ from what a join says: other
// ways to the same API servers, and another place of the same keys.
var ownWay = []string{"controlAddresses", "encryptionConfig"}

// Change changes what Save writes. A drop-in or a variable that contradicts it is
// an error: the machine would not fit its cluster.
func (o *Options) Change(p *Plan, change func(*config.Control, *config.Agent, *config.Proxy)) error {
	change(p.base.control, p.base.agent, p.base.proxy)
	if err := o.merge(p.layers); err != nil {
		return err
	}
	return o.unchanged(p.layers, "this cluster", func(c configurations) { change(c.control, c.agent, c.proxy) })
}

// unchanged returns an error when a change of the effective configurations would
// change anything, on behalf of the one who wants it.
func (o *Options) unchanged(l layers, who string, change func(configurations)) error {
	is := l.effective
	wanted := configurations{role: is.role, control: config.Clone(is.control), agent: config.Clone(is.agent), proxy: config.Clone(is.proxy)}
	change(wanted)
	differences := map[string][]string{
		"control": config.Differences(is.control, wanted.control), "agent": config.Differences(is.agent, wanted.agent), "proxy": config.Differences(is.proxy, wanted.proxy),
	}
	var errs []error
	for _, name := range daemonsOf(is.role) {
		fields := slices.DeleteFunc(differences[name], func(field string) bool { return slices.Contains(ownWay, field) })
		if len(fields) > 0 {
			errs = append(errs, fmt.Errorf("skiff-%s: drop-ins in %s or environment variables set %s otherwise than %s, and win: change them there, or take them away",
				name, config.DropInDir(o.UserConfig(name)), strings.Join(fields, ", "), who))
		}
	}
	return errors.Join(errs...)
}

// CheckPorts finds ports of the plan that another program has. It is asked
// while no daemon of this machine runs.
func (p *Plan) CheckPorts() error {
	type use struct {
		flag string
		port int
	}
	uses := []use{{"--agent-port", p.Agent.Port}, {"--proxy-health-port", p.Proxy.HealthPort}, {"--proxy-metrics-port", p.Proxy.MetricsPort}}
	if p.effective.role == operator.Control {
		uses = append(uses, use{"--port", p.Control.Port}, use{"--peer-port", p.Control.PeerPort})
	}
	var errs []error
	for _, each := range uses {
		if each.port == 0 {
			continue
		}
		listener, err := net.Listen("tcp", ":"+strconv.Itoa(each.port))
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d (%s) is taken: stop the program that has it (ss -ltnp), or choose another port: %w", each.port, each.flag, err))
			continue
		}
		listener.Close()
	}
	return unfit(errors.Join(errs...))
}

// Save writes the plan into /etc/skiff, where people and systemd's units find
// it and every later start takes it from, without what drop-ins and environment
// say. An address that every start would find again is left out, so that a
// machine may get another one.
func (o *Options) Save(p *Plan) error {
	c := p.base
	if again, err := defaultAddress(); err == nil && o.AddressFound && again == c.agent.NodeIP {
		control, agent := *c.control, *c.agent
		control.AdvertiseAddress, agent.NodeIP = "", ""
		c.control, c.agent = &control, &agent
	}
	for _, name := range daemonsOf(c.role) {
		configuration := c.of(name)
		if errs := configuration.Validate(); len(errs) > 0 {
			return fmt.Errorf("configuration of %s: %w", name, errs.ToAggregate())
		}
		if err := config.Write(o.UserConfig(name), configuration); err != nil {
			return err
		}
	}
	return nil
}

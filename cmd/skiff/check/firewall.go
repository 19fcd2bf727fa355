package check

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func checkFirewall(ctx context.Context, e *examination) {
	if !e.rootOnly("firewalls") {
		return
	}
	managed := false
	if strings.Contains(e.text("etc/ufw/ufw.conf"), "ENABLED=yes") {
		managed = true
		e.ufw(ctx)
	}
	if output, err := e.run(ctx, "", "firewall-cmd", "--state"); err == nil && strings.TrimSpace(output) == "running" {
		managed = true
		e.firewalld(ctx)
	}
	chains, err := e.dropping(ctx)
	if err != nil {
		e.warn("nftables", "the chains in place cannot be listed: "+firstLine(err.Error()), "nft list ruleset")
	}
	closed := 0
	for _, c := range chains {
		// What ufw and firewalld made was judged in their own terms.
		if managed && (c.Table == "firewalld" || e.made(ctx, c, "ufw")) {
			continue
		}
		closed++
		e.chain(ctx, c)
	}
	if !managed && closed == 0 && err == nil {
		e.ok("filters", "no firewall, and no chain that drops by default")
	}
}

// allowances are what a firewall has to let in here: ports and who uses them.
func (m *machine) allowances() []port {
	return slices.DeleteFunc(m.ports(), func(p port) bool { return p.from == "" || p.purpose == "proxy health" })
}

// ufw compares its rules with what is needed.
func (e *examination) ufw(ctx context.Context) {
	status, err := e.run(ctx, "", "ufw", "status", "verbose")
	if err != nil {
		e.warn("ufw", "is enabled, but cannot be asked: "+firstLine(err.Error()), "ufw status verbose")
		return
	}
	var remedy []string
	for _, p := range e.allowances() {
		if !ufwAllows(status, p.number) {
			remedy = append(remedy, fmt.Sprintf("ufw allow %d/tcp comment 'skiff: %s'", p.number, p.purpose))
		}
	}
	pods := e.control.PodCIDR
	if !strings.Contains(status, pods) {
		remedy = append(remedy, "ufw allow from "+pods+" comment 'skiff: pods'",
			"ufw route allow from "+pods+" comment 'skiff: pods'", "ufw route allow to "+pods+" comment 'skiff: pods'")
	}
	if len(remedy) > 0 {
		e.warn("ufw", "is on and lets through too little: machines do not reach each other, or pods nobody. For node ports: ufw allow "+strings.ReplaceAll(e.control.NodePortRange, "-", ":")+"/tcp", remedy...)
		return
	}
	e.ok("ufw", "is on and has rules for Skiff's ports and pods")
}

// ufwAllows looks for a rule such as "6443/tcp  ALLOW IN  Anywhere", or 6443,6444/tcp.
func ufwAllows(status string, number int) bool {
	for line := range strings.Lines(status) {
		target, _, found := strings.Cut(line, "ALLOW")
		if !found || strings.Contains(target, "/udp") {
			continue
		}
		ports, _, _ := strings.Cut(strings.TrimSpace(target), "/")
		if ports == "Anywhere" && strings.Contains(line, "Anywhere  ") || portIn(ports, number) {
			return true
		}
	}
	return false
}

// firewalld compares the ports of its active zones with what is needed.
func (e *examination) firewalld(ctx context.Context) {
	zones, err := e.run(ctx, "", "firewall-cmd", "--list-all-zones")
	if err != nil {
		e.warn("firewalld", "runs, but cannot be asked: "+firstLine(err.Error()), "firewall-cmd --list-all-zones")
		return
	}
	var remedy []string
	for _, p := range e.allowances() {
		if !strings.Contains(zones, fmt.Sprintf("%d/tcp", p.number)) {
			remedy = append(remedy, fmt.Sprintf("firewall-cmd --permanent --add-port=%d/tcp   # %s", p.number, p.purpose))
		}
	}
	if !strings.Contains(zones, e.control.PodCIDR) {
		remedy = append(remedy, "firewall-cmd --permanent --zone=trusted --add-source="+e.control.PodCIDR+"   # pods")
	}
	if len(remedy) > 0 {
		e.warn("firewalld", "is on and lets through too little: machines do not reach each other, or pods nobody. For node ports: firewall-cmd --permanent --add-port="+e.control.NodePortRange+"/tcp", append(remedy, "firewall-cmd --reload")...)
		return
	}
	e.ok("firewalld", "is on and has rules for Skiff's ports and pods")
}

// chain is one that is called for packets, as nft lists it.
type chain struct {
	Family, Table, Name, Hook, Policy string
}

// dropping are chains of others that see all packets to or through this machine
// and drop what no rule of theirs accepts.
func (e *examination) dropping(ctx context.Context) ([]chain, error) {
	if !e.exists("sys/module/nf_tables") && !e.features(e.release()).builtIn["nf_tables"] {
		return nil, nil // listing would load it
	}
	if _, err := e.lookPath("nft"); err != nil {
		return nil, nil // said among the programs
	}
	output, err := e.run(ctx, "", "nft", "--json", "list", "chains")
	if err != nil {
		return nil, err
	}
	return foreignChains([]byte(output))
}

// release is the kernel's, "" if it does not say.
func (h *host) release() string {
	release, _, _ := h.kernel()
	return release
}

func foreignChains(data []byte) ([]chain, error) {
	var listing struct {
		Nftables []struct{ Chain *chain }
	}
	if err := json.Unmarshal(data, &listing); err != nil {
		return nil, fmt.Errorf("read what nft lists: %w", err)
	}
	var found []chain
	for _, each := range listing.Nftables {
		c := each.Chain
		if c == nil || c.Policy != "drop" || (c.Hook != "input" && c.Hook != "forward") || strings.HasPrefix(c.Table, "skiff") {
			continue
		}
		if c.Family == "ip" || c.Family == "inet" {
			found = append(found, *c)
		}
	}
	return found, nil
}

// made says whether the program made the chain: it calls others by its name.
func (e *examination) made(ctx context.Context, c chain, program string) bool {
	output, err := e.run(ctx, "", "nft", "list", "chain", c.Family, c.Table, c.Name)
	return err == nil && strings.Contains(output, "jump "+program)
}

// chain compares the rules of a chain, and of those it may jump to, with what is needed.
func (e *examination) chain(ctx context.Context, c chain) {
	name := fmt.Sprintf("chain %s", c.Name)
	rules, err := e.run(ctx, "", "nft", "list", "table", c.Family, c.Table)
	if err != nil {
		return // it went away meanwhile
	}
	var remedy []string
	rule := func(text string) {
		remedy = append(remedy, fmt.Sprintf("nft insert rule %s %s %s %s accept", c.Family, c.Table, c.Name, text))
	}
	pods := e.control.PodCIDR
	if c.Hook == "input" {
		for _, p := range e.allowances() {
			if !accepts(rules, p.number) {
				rule(fmt.Sprintf("tcp dport %d", p.number))
			}
		}
		if !mentions(rules, pods, e.agent.Bridge) {
			rule("ip saddr " + pods)
		}
	} else if !mentions(rules, pods, e.agent.Bridge) {
		rule("ip saddr " + pods)
		rule("ip daddr " + pods)
		rule("ct state established,related")
	}
	where := fmt.Sprintf("%s of table %s %s drops what it does not accept", c.Hook, c.Family, c.Table)
	if len(remedy) == 0 {
		e.ok(name, "%s; it accepts Skiff's ports and pods", where)
		return
	}
	what := "Skiff's ports"
	if c.Hook == "forward" {
		what = "pods"
	}
	e.warn(name, where+", and no rule was found that accepts "+what, append(remedy, "# and the same where they are made at boot, such as /etc/nftables.conf; Docker: iptables -I DOCKER-USER")...)
}

// acceptedPorts are in a rule such as "tcp dport { 22, 6443-6444 } accept".
var acceptedPorts = regexp.MustCompile(`dport (\{[^}]*\}|\S+).*accept`)

// accepts says whether a rule accepts the port, or everything.
func accepts(rules string, number int) bool {
	for line := range strings.Lines(rules) {
		match := acceptedPorts.FindStringSubmatch(line)
		if match == nil || strings.Contains(line, "udp dport") {
			continue
		}
		if portIn(strings.Trim(match[1], "{} "), number) {
			return true
		}
	}
	return false
}

// portIn says whether a list such as "22, 6443-6444,10250" or "30000:32767" has the port.
func portIn(list string, number int) bool {
	for each := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.ReplaceAll(strings.TrimSpace(each), ":", "-"), "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(last); err != nil {
				continue
			}
		}
		if from <= number && number <= to {
			return true
		}
	}
	return false
}

// mentions says whether a rule accepts what is from or for pods.
func mentions(rules, pods, bridge string) bool {
	for line := range strings.Lines(rules) {
		if strings.Contains(line, "accept") && (strings.Contains(line, pods) || strings.Contains(line, `"`+bridge+`"`)) {
			return true
		}
	}
	return false
}

package renewal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/pki"
)

// memory is a ledger that all machines of a test share.
type memory struct {
	mu      sync.Mutex
	records map[string]Record
	members []string
	writes  int
	down    error
}

func (m *memory) Records(context.Context) (map[string]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.records), m.down
}

func (m *memory) Write(_ context.Context, member string, record Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	m.records[member] = record
	return m.down
}

func (m *memory) Delete(_ context.Context, member string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, member)
	return m.down
}

func (m *memory) Members(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.members), m.down
}

// machine is a control machine as an operator leaves it, with daemons that
// loaded its certificates at the beginning and never again.
type machine struct {
	t       *testing.T
	dir     string
	keeper  *Keeper
	api     *pki.Identity // serves the API, believes clients
	kubelet *pki.Identity // what the API server shows to agents
	store   *pki.Identity
}

func newMachine(t *testing.T, id string, ledger Ledger, like *machine) *machine {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "pki")
	if like != nil {
		// As joining does: the authorities come from the first machine.
		for _, name := range []string{"ca", "front-proxy-ca", "store-ca", "sa"} {
			for _, ending := range []string{".crt", ".key"} {
				data, err := os.ReadFile(filepath.Join(like.dir, name+ending))
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name+ending), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	authority, err := pki.EnsureControl(pki.Control{Dir: dir, Names: []string{id}, Addresses: []net.IP{net.IPv4(192, 0, 2, 1)}, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.EnsureStoreMember(dir, id, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureKubeconfig(filepath.Join(root, "admin.conf"), "skiff", "https://192.0.2.1:6443", "kubernetes-admin", pki.AdminGroup); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, keeper: &Keeper{Dir: dir, Member: id, Ledger: ledger, Logger: slog.New(slog.DiscardHandler)}}
	load := func(name, roots string) *pki.Identity {
		identity, err := pki.LoadIdentity(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), filepath.Join(dir, roots+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		return identity
	}
	m.api, m.kubelet, m.store = load("apiserver", "ca"), load("apiserver-kubelet-client", "ca"), load("store-peer", "store-ca")
	return m
}

// believes verifies what the other shows now against what this one trusts now.
func believes(who, other *pki.Identity, usage x509.ExtKeyUsage) error {
	certificate, err := other.Certificate()
	if err != nil {
		return err
	}
	_, err = certificate.Leaf.Verify(x509.VerifyOptions{Roots: who.Roots(), CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// everybodyIsBelieved checks each pair of machines, and each administrator.
func everybodyIsBelieved(machines []*machine) error {
	for i, a := range machines {
		for j, b := range machines {
			if err := errors.Join(
				believes(a.kubelet, b.api, x509.ExtKeyUsageServerAuth), believes(a.api, b.kubelet, x509.ExtKeyUsageClientAuth),
				believes(a.store, b.store, x509.ExtKeyUsageServerAuth), believes(a.store, b.store, x509.ExtKeyUsageClientAuth),
				a.administers(b),
			); err != nil {
				return fmt.Errorf("machine %d does not believe machine %d: %w", i, j, err)
			}
		}
	}
	return nil
}

// administers checks this machine's admin.conf against the other's API server.
func (m *machine) administers(other *machine) error {
	config, err := clientcmd.LoadFromFile(filepath.Join(filepath.Dir(m.dir), "admin.conf"))
	if err != nil {
		return err
	}
	user := config.AuthInfos["kubernetes-admin"]
	pair, err := tls.X509KeyPair(user.ClientCertificateData, user.ClientKeyData)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: other.api.Roots(), CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("admin.conf: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters["skiff"].CertificateAuthorityData)
	serving, err := other.api.Certificate()
	if err != nil {
		return err
	}
	_, err = serving.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now()})
	return err
}

const day = 24 * time.Hour

func TestElevenYearsPassAndEverybodyStillBelievesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &memory{records: map[string]Record{}, members: []string{"a", "b", "c"}}
		first := newMachine(t, "a", ledger, nil)
		machines := []*machine{first, newMachine(t, "b", ledger, first), newMachine(t, "c", ledger, first)}
		begin, err := pki.ReadBundle(filepath.Join(first.dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, m := range machines {
			m.keeper.Interval = 5 * day
			running.Go(func() { m.keeper.Run(ctx) })
		}
		for past := time.Duration(0); past < 11*365*day; past += 21 * day {
			if err := everybodyIsBelieved(machines); err != nil {
				t.Fatalf("after %d days: %v", past/day, err)
			}
			time.Sleep(21 * day)
			synctest.Wait()
		}
		cancel()
		running.Wait()
		for _, m := range machines {
			bundle, err := pki.ReadBundle(filepath.Join(m.dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(bundle, begin[0].Equal) || len(bundle) != 3 {
				t.Errorf("%s: %d authorities at the end, want the successors of three machines and not the first", m.keeper.Member, len(bundle))
			}
			found, err := pki.Check(m.dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range found {
				if c.Problem != "" {
					t.Errorf("%s: %s: %s", m.keeper.Member, c.Name, c.Problem)
				}
			}
		}
		// At rest nobody writes to the store: once at first, and for each of the
		// steps of three authorities.
		if ledger.writes > 3*40 {
			t.Errorf("%d records written in eleven years", ledger.writes)
		}
	})
}

func TestASuccessorDoesNotSignBeforeEveryMachineTrustsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &memory{records: map[string]Record{}, members: []string{"a", "b"}}
		a := newMachine(t, "a", ledger, nil)
		b := newMachine(t, "b", ledger, a)
		round := func(m *machine) {
			t.Helper()
			if err := m.keeper.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		stage := func() pki.Stage {
			t.Helper()
			r, err := pki.RotationOf(a.dir, "ca")
			if err != nil {
				t.Fatal(err)
			}
			return r.Stage
		}
		round(a)
		round(b)
		if err := pki.Introduce(a.dir, "ca"); err != nil {
			t.Fatal(err)
		}
		// Machine b is off for twice the settling time.
		for range 60 {
			time.Sleep(day)
			round(a)
		}
		if stage() != pki.Trusting {
			t.Fatalf("stage %s although b does not trust the successor", stage())
		}
		round(b)
		round(a)
		if stage() != pki.Replacing {
			t.Fatalf("stage %s although b trusts the successor", stage())
		}
		round(a)
		round(b)
		if err := everybodyIsBelieved([]*machine{a, b}); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutTheStoreCertificatesAreRenewedAndTrustStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &memory{records: map[string]Record{}, members: []string{"a"}, down: errors.New("no leader")}
		m := newMachine(t, "a", ledger, nil)
		trusted, err := os.ReadFile(filepath.Join(m.dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * day)
		if err := m.keeper.Round(t.Context()); !errors.Is(err, ledger.down) {
			t.Errorf("got %v", err)
		}
		time.Sleep(300 * day)
		if err := everybodyIsBelieved([]*machine{m}); err != nil {
			t.Error(err)
		}
		if after, err := os.ReadFile(filepath.Join(m.dir, "ca.crt")); err != nil || string(after) != string(trusted) {
			t.Errorf("trust changed: %v", err)
		}
	})
}

func TestTheAuthoritiesOfAMachineThatLeftAreTrustedUntilTheirCertificatesHaveExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &memory{records: map[string]Record{}, members: []string{"a", "b"}}
		a, b := newMachine(t, "a", ledger, nil), newMachine(t, "b", ledger, nil)
		for _, m := range []*machine{a, b, a} {
			if err := m.keeper.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ledger.members = []string{"a"}
		trusted := func() int {
			t.Helper()
			for range 2 {
				if err := a.keeper.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			bundle, err := pki.ReadBundle(filepath.Join(a.dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			return len(bundle)
		}
		if n := trusted(); n != 2 {
			t.Errorf("%d authorities the moment b left, want 2", n)
		}
		time.Sleep(360 * day)
		if n := trusted(); n != 2 {
			t.Errorf("%d authorities after 360 days, want 2", n)
		}
		time.Sleep(10 * day)
		if n := trusted(); n != 1 {
			t.Errorf("%d authorities after 370 days, want 1", n)
		}
	})
}

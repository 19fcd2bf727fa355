package join

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/operator"
)

// Administrator speaks to the cluster with an administrator's kubeconfig.
type Administrator struct {
	Client kubernetes.Interface
	Config *rest.Config
}

// NewAdministrator reads the kubeconfig. The API server it names is asked or,
// while nobody listens there, the first of others, host:port, that answers.
func NewAdministrator(kubeconfig string, others ...string) (*Administrator, error) {
	a, own, err := readKubeconfig(kubeconfig)
	if err != nil || len(others) == 0 {
		return a, err
	}
	return a.among(append([]string{own}, others...))
}

// NewAdministratorAt is NewAdministrator at the addresses alone.
func NewAdministratorAt(kubeconfig string, addresses []string) (*Administrator, error) {
	a, _, err := readKubeconfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	return a.among(addresses)
}

// among is the same administrator, speaking to the first address that answers.
func (a *Administrator) among(addresses []string) (*Administrator, error) {
	config := rest.CopyConfig(a.Config)
	config.TLSClientConfig.ServerName = serverName
	config.Dial = apiclient.NewDialer(addresses).DialContext
	return newAdministrator(config)
}

// readKubeconfig returns the administrator and host:port of the API server
// that the kubeconfig names.
func readKubeconfig(kubeconfig string) (*Administrator, string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if os.IsNotExist(err) {
		return nil, "", fmt.Errorf("%s is not there: run this on a control machine, or name an administrator's kubeconfig with --kubeconfig", kubeconfig)
	}
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.UserAgent = userAgent()
	server, err := url.Parse(config.Host)
	if err != nil || server.Host == "" {
		return nil, "", fmt.Errorf("kubeconfig %s: server %q is not a URL", kubeconfig, config.Host)
	}
	a, err := newAdministrator(config)
	return a, server.Host, err
}

func newAdministrator(config *rest.Config) (*Administrator, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Administrator{Client: client, Config: config}, nil
}

// At is the same administrator, speaking to the API server at address only.
func (a *Administrator) At(address string) (*Administrator, error) {
	config := rest.CopyConfig(a.Config)
	config.Host, config.TLSClientConfig.ServerName, config.Dial = "https://"+address, serverName, nil
	return newAdministrator(config)
}

// do sends one request of an operator; into is where the answer goes, if anywhere.
func (a *Administrator) do(ctx context.Context, verb, path string, body, into any) error {
	request := a.Client.Discovery().RESTClient().Verb(verb).AbsPath(path).SetHeader("Accept", "application/json")
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		request = request.Body(data).SetHeader("Content-Type", "application/json")
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil || into == nil {
		return err
	}
	data, err := result.Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", verb, path, err)
	}
	return nil
}

// Status is how the control machine that answers sees itself.
func (a *Administrator) Status(ctx context.Context) (*operator.Status, error) {
	status := &operator.Status{}
	return status, a.do(ctx, "GET", operator.StatusPath, nil, status)
}

// Members are the members of the store.
func (a *Administrator) Members(ctx context.Context) ([]operator.Member, error) {
	var list operator.MemberList
	err := a.do(ctx, "GET", operator.MembersPath, nil, &list)
	return list.Members, err
}

// AddMember adds a member to the store, or changes its address.
func (a *Administrator) AddMember(ctx context.Context, id, address string) error {
	return a.do(ctx, "POST", operator.MembersPath, operator.MemberRequest{ID: id, Address: address}, nil)
}

// RemoveMember removes a member from the store.
func (a *Administrator) RemoveMember(ctx context.Context, id string) error {
	return a.do(ctx, "DELETE", operator.MembersPath+"/"+id, nil, nil)
}

// PromoteMember makes a member vote.
func (a *Administrator) PromoteMember(ctx context.Context, id string) error {
	return a.do(ctx, "POST", operator.MembersPath+"/"+id+"/promote", nil, nil)
}

// TransferLeadership makes a voter the leader, the best one if id is empty.
func (a *Administrator) TransferLeadership(ctx context.Context, id string) error {
	return a.do(ctx, "POST", operator.TransferPath, operator.TransferRequest{ID: id}, nil)
}

// Snapshot is a snapshot of the store, which the caller closes.
func (a *Administrator) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	return a.Client.Discovery().RESTClient().Get().AbsPath(operator.SnapshotPath).SetHeader("Accept", "application/octet-stream, application/json").Stream(ctx)
}

// eventually asks until the answer is yes, an error that ask returns or ctx
// ends; why says what was the matter last.
func eventually(ctx context.Context, ask func() (yes bool, why string, err error)) error {
	const pause = 100 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		yes, why, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), why)
		case <-ticker.C:
		}
	}
}

// leaderPatience bounds how long an election is waited for.
const leaderPatience = 15 * time.Second

// WaitForLeader returns the name of the member that leads, once it is the one
// of the id, or any if id is empty.
func (a *Administrator) WaitForLeader(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, leaderPatience, fmt.Errorf("not within %s", leaderPatience))
	defer cancel()
	name := ""
	err := eventually(ctx, func() (bool, string, error) {
		survey, err := a.LookAround(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		for _, machine := range survey.Machines {
			if m := machine.Member; m != nil && m.Leader && (id == "" || m.ID == id) {
				name = machine.Name()
				return true, "", nil
			}
		}
		return false, "the store has no leader yet, or another one", nil
	})
	return name, err
}

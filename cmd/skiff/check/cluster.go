package check

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/operator"
)

// cluster is what the API says of the cluster that the machine belongs to.
type cluster struct {
	nodes []node
	// members of the store; only administrators are told.
	members []operator.Member
}

// node is another machine, or this one.
type node struct {
	name, machineID string
	// address by which it is reached, and port of its agent.
	address string
	port    int32
	ready   bool
}

// errAlone says that the machine belongs to no cluster yet.
var errAlone = errors.New("this machine belongs to no cluster yet")

// askCluster asks as the administrator on a control machine, elsewhere as the node.
func askCluster(ctx context.Context, m *machine) (*cluster, error) {
	if !m.installed {
		return nil, errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	c := &cluster{}
	var client kubernetes.Interface
	if m.role == operator.Control {
		administrator, err := join.NewAdministrator(m.AdminKubeconfig(), m.Servers()...)
		if err != nil {
			return nil, err
		}
		client = administrator.Client
		if c.members, err = administrator.Members(ctx); err != nil {
			return nil, fmt.Errorf("list the members of the store: %w", err)
		}
	} else {
		var err error
		if client, err = m.nodeClient(); err != nil {
			return nil, err
		}
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for i := range list.Items {
		c.nodes = append(c.nodes, describe(&list.Items[i]))
	}
	return c, nil
}

func describe(n *corev1.Node) node {
	d := node{name: n.Name, machineID: n.Status.NodeInfo.MachineID, port: n.Status.DaemonEndpoints.KubeletEndpoint.Port}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && d.address == "" {
			d.address = a.Address
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			d.ready = c.Status == corev1.ConditionTrue
		}
	}
	return d
}

// nodeClient speaks to the API as this machine's agent does, with the newest
// certificate it was issued.
func (m *machine) nodeClient() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", m.agent.Kubeconfig)
	if err != nil {
		return nil, err
	}
	issued := filepath.Join(m.PKI(), "agent-client-current.pem")
	if _, err := os.Stat(issued); err == nil {
		config.CertData, config.KeyData = nil, nil
		config.CertFile, config.KeyFile = issued, issued
	}
	addresses := m.servers
	if server, err := url.Parse(config.Host); err == nil {
		addresses = append([]string{server.Host}, addresses...)
	}
	config.ServerName, config.Dial = serverName, apiclient.NewDialer(addresses).DialContext
	return kubernetes.NewForConfig(config)
}

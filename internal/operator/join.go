package operator

import "time"

// Settings are what every machine of a cluster must agree on.
type Settings struct {
	ClusterName      string `json:"clusterName"`
	ServiceCIDR      string `json:"serviceCIDR"`
	PodCIDR          string `json:"podCIDR"`
	NodeCIDRMaskSize int    `json:"nodeCIDRMaskSize"`
	NodePortRange    string `json:"nodePortRange"`
	ClusterDomain    string `json:"clusterDomain"`
	ClusterDNS       string `json:"clusterDNS"`
	// Port of the API on every control machine.
	Port int `json:"port"`
}

// Terms tell the holder of a join token what joining means.
type Terms struct {
	Role     Role     `json:"role"`
	Version  string   `json:"version"`
	Settings Settings `json:"settings"`
	// Time is the server's clock, by which a joining machine checks its own.
	Time time.Time `json:"time"`
	// ControlAddresses are host:port of every API server.
	ControlAddresses []string `json:"controlAddresses"`
}

// JoinRequest introduces a machine that wants to join.
type JoinRequest struct {
	NodeName string `json:"nodeName"`
	// Address is the machine's IP address, by which others reach it.
	Address string `json:"address"`
	// MemberID is a control machine's name in the store.
	MemberID string `json:"memberID,omitempty"`

	// A worker's certificate requests, PEM. Of each only the key counts: the
	// server writes the names itself.
	Agent       []byte `json:"agent,omitempty"`
	AgentServer []byte `json:"agentServer,omitempty"`
	Proxy       []byte `json:"proxy,omitempty"`
}

// ControlGrant makes a machine a control machine: the authorities with their
// keys, from which it makes its own certificates.
type ControlGrant struct {
	// Files of the folder of certificates by name.
	Files map[string][]byte `json:"files"`
	// Encryption is the cluster's EncryptionConfiguration, if it has one.
	Encryption []byte `json:"encryption,omitempty"`
}

// WorkerGrant makes a machine a worker. Everything is PEM; keys never travel.
type WorkerGrant struct {
	// CA is the cluster's authority, by which servers and clients are known.
	CA          []byte `json:"ca"`
	Agent       []byte `json:"agent"`
	AgentServer []byte `json:"agentServer"`
	Proxy       []byte `json:"proxy"`
}

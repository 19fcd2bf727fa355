// Package operator holds what an operator's command line and an API server say
// to each other below /skiff.dev/v1: joining machines, the members of the
// store, leadership, snapshots, and a member's view of itself. All of it is
// JSON over HTTPS; an error is a metav1.Status, as everywhere in the API.
package operator

// Paths of the API server. What is not below JoinPath, nor ServersPath, is for administrators.
const (
	// Root is the prefix of all.
	Root = "/skiff.dev/v1"
	// JoinPath answers GET with Terms to whoever holds a join token.
	JoinPath = Root + "/join"
	// JoinControlPath and JoinWorkerPath take a JoinRequest by POST, each from
	// holders of a token of its role, and answer with a ControlGrant or a WorkerGrant.
	JoinControlPath = JoinPath + "/control"
	JoinWorkerPath  = JoinPath + "/worker"
	// ServersPath answers GET with Servers to everybody who is known to the API.
	ServersPath = Root + "/servers"
	// StatusPath answers GET with a Status.
	StatusPath = Root + "/status"
	// MembersPath answers GET with a MemberList and takes a MemberRequest by
	// POST; MembersPath/<id> takes DELETE, MembersPath/<id>/promote takes POST.
	MembersPath = Root + "/members"
	// TransferPath takes a TransferRequest by POST.
	TransferPath = Root + "/leader/transfer"
	// SnapshotPath answers GET with a snapshot of the store, an octet stream
	// that verifies itself.
	SnapshotPath = Root + "/snapshot"
)

// Role of a machine in the cluster.
type Role string

// The roles.
const (
	Control Role = "control"
	Worker  Role = "worker"
)

// Groups of the holders of join tokens.
const (
	ControlGroup = "system:bootstrappers:skiff:control"
	WorkerGroup  = "system:bootstrappers:skiff:worker"
)

// Group is the group of the holders of tokens for the role.
func (r Role) Group() string {
	if r == Control {
		return ControlGroup
	}
	return WorkerGroup
}

// Servers are the API servers of a cluster.
type Servers struct {
	// Addresses are host:port of each.
	Addresses []string `json:"addresses"`
}

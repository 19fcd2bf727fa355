package csi

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Driver is a registered driver. Its calls may run at the same time.
type Driver struct {
	Name string
	// Info is what the driver said of this node when it registered.
	Info *csi.NodeGetInfoResponse

	// socket is the registration socket by which it came, endpoint the driver's own.
	socket, endpoint string
	conn             *grpc.ClientConn
	node             csi.NodeClient

	// mu guards capabilities, which are asked for once.
	mu           sync.Mutex
	capabilities []csi.NodeServiceCapability_RPC_Type
}

// dial connects to a socket of this machine: who may reach it is decided by the folder
// it is in.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func newDriver(name, socket, endpoint string) (*Driver, error) {
	conn, err := dial(endpoint)
	if err != nil {
		return nil, fmt.Errorf("connect to driver %s: %w", name, err)
	}
	return &Driver{Name: name, socket: socket, endpoint: endpoint, conn: conn, node: csi.NewNodeClient(conn)}, nil
}

// Can reports whether the driver has a capability.
func (d *Driver) Can(ctx context.Context, capability csi.NodeServiceCapability_RPC_Type) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.capabilities == nil {
		response, err := d.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
		if err != nil {
			return false, fmt.Errorf("ask driver %s for its capabilities: %w", d.Name, err)
		}
		d.capabilities = []csi.NodeServiceCapability_RPC_Type{}
		for _, c := range response.GetCapabilities() {
			d.capabilities = append(d.capabilities, c.GetRpc().GetType())
		}
	}
	return slices.Contains(d.capabilities, capability), nil
}

// Stage makes a volume ready on this node.
func (d *Driver) Stage(ctx context.Context, request *csi.NodeStageVolumeRequest) error {
	_, err := d.node.NodeStageVolume(ctx, request)
	return err
}

// Unstage undoes Stage.
func (d *Driver) Unstage(ctx context.Context, volume, path string) error {
	_, err := d.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: volume, StagingTargetPath: path})
	return err
}

// Publish shows a volume to one pod.
func (d *Driver) Publish(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	_, err := d.node.NodePublishVolume(ctx, request)
	return err
}

// Unpublish undoes Publish.
func (d *Driver) Unpublish(ctx context.Context, volume, path string) error {
	_, err := d.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: path})
	return err
}

func (d *Driver) close() { _ = d.conn.Close() }

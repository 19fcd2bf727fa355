package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// grpc asks the standard health service.
func (c *checker) grpc(ctx context.Context, t *target, timeout time.Duration) (outcome, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	address := net.JoinHostPort(t.podIP, strconv.Itoa(int(t.spec.GRPC.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithUserAgent(fmt.Sprintf(userAgent, "probe")),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return failed, fmt.Sprintf("error: failed to connect service at %q: %+v", address, err), nil
	}
	defer conn.Close()
	service := ""
	if t.spec.GRPC.Service != nil {
		service = *t.spec.GRPC.Service
	}
	response, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		switch {
		case status.Code(err) == codes.Unimplemented:
			return failed, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + status.Convert(err).Message(), nil
		case status.Code(err) == codes.DeadlineExceeded && conn.GetState() != connectivity.Ready:
			return failed, fmt.Sprintf("timeout: failed to connect service %q within %v: %+v", address, timeout, context.DeadlineExceeded), nil
		case status.Code(err) == codes.DeadlineExceeded:
			return failed, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout), nil
		}
		return failed, fmt.Sprintf("error: health rpc probe failed: %+v", err), nil
	}
	if response.GetStatus() != health.HealthCheckResponse_SERVING {
		return failed, fmt.Sprintf("service unhealthy (responded with %q)", response.GetStatus().String()), nil
	}
	return succeeded, "service healthy", nil
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// connectTimeout bounds the look-up of a name, and then each try to connect, and to shake
// hands.
const connectTimeout = 15 * time.Second

// A dialer connects to hosts that are allowed. Whom a name stands for is up to whoever
// runs its zone, so addresses that are this machine's own matter, or the cloud's, are
// connected to only where the entry says the address itself. What was looked at is what is
// dialed: no second look-up could give something else.
type dialer struct {
	resolve func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
}

func newDialer() *dialer {
	return &dialer{resolve: net.DefaultResolver.LookupNetIP, dial: new(net.Dialer).DialContext}
}

// errInner is the operator's to mend: the entry has to say the address.
var errInner = errors.New("the name stands for an inner address")

// DialContext connects to a HOST:PORT.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	addrs, err := d.addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := d.try(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) try(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return d.dial(ctx, network, addr)
}

// addrs returns the addresses of a host that may be connected to, one or more.
func (d *dialer) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	found, err := d.resolve(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("cannot look up %s: %w", host, err)
	}
	fit := slices.DeleteFunc(slices.Clone(found), isInner)
	if len(fit) == 0 {
		return nil, fmt.Errorf("cannot connect to %s: %w", host, errInner)
	}
	for i := range fit {
		fit[i] = fit[i].Unmap()
	}
	return fit, nil
}

// innerNets are where clouds tell a machine its secrets, and what nobody should be asked
// at. The usual 169.254.169.254 is link-local.
var innerNets = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.0/24"),       // Oracle, and RFC 6890
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("fd00:ec2::/32"), // Amazon
	netip.MustParsePrefix("fd20:ce::/32"),  // Google
	netip.MustParsePrefix("::/96"),         // IPv4 in a form that nobody uses
	netip.MustParsePrefix("2002::/16"),     // likewise: RFC 3056
}

// translated is where a network without IPv4 has all hosts of IPv4 (RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96")

// isInner reports whether no name may stand for the address.
func isInner(addr netip.Addr) bool {
	a := addr.Unmap()
	if translated.Contains(a) {
		wide := a.As16()
		a = netip.AddrFrom4([4]byte(wide[12:]))
	}
	return a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() ||
		slices.ContainsFunc(innerNets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// A stalling connection fails when nothing moves for its limit.
type stalling struct {
	net.Conn
	limit time.Duration
}

func (c stalling) Read(p []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.limit))
	return c.Conn.Read(p)
}

func (c stalling) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.limit))
	return c.Conn.Write(p)
}

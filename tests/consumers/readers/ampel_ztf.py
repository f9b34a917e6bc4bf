"""AMPEL: its loader of the stream, its supplier and shaper of alerts, its filter, its reader of nightly tars."""

from _telling import ASKED, group_of, tell
from ampel.alert.load.TarAlertLoader import TarAlertLoader
from ampel.log.AmpelLogger import AmpelLogger
from ampel.ztf.alert.ZiAlertSupplier import ZiAlertSupplier
from ampel.ztf.ingest.ZiDataPointShaper import ZiDataPointShaperBase
from ampel.ztf.t0.DecentFilter import DecentFilter
from ampel.ztf.t0.load.UWAlertLoader import UWAlertLoader
from fastavro import reader

logger = AmpelLogger.get_logger()


def counted(loader):
    """Return (candid -> [photopoints, limits, None], AMPEL's alerts) as AMPEL sees what a loader yields."""
    packets, alerts = {}, []
    for file in loader:
        alert = ZiAlertSupplier.shape_alert_dict(next(reader(file)))
        n_seen = sum("candid" in point for point in alert.datapoints)
        packets[alert.id] = [n_seen, len(alert.datapoints) - n_seen, None]
        alerts.append(alert)
    return packets, alerts


login = (
    {
        "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": ASKED["user"],
        "sasl.password": ASKED["password"],
    }
    if ASKED["user"] else {}
)  # fmt: skip
loader = UWAlertLoader(
    bootstrap=ASKED["servers"], stream="ztf_uw_public", group_name=group_of("ampel"), timeout=10,
    kafka_consumer_properties=login,
)  # fmt: skip
packets, alerts = counted(loader.alerts(limit=ASKED["n"]))
from_tar, _ = counted(TarAlertLoader(file_path=ASKED["tar"], tar_mode="r:"))
assert from_tar == packets
loose = DecentFilter(
    min_ndet=1, min_tspan=-1, max_tspan=1e5, min_archive_tspan=-1, max_archive_tspan=1e5, min_drb=0.0, min_rb=0.0,
    max_fwhm=1e3, max_elong=1e3, max_magdiff=1e3, max_nbad=1000, min_sso_dist=-1e4, min_gal_lat=-1.0,
    gaia_rs=0.0, gaia_pm_signif=3, gaia_plx_signif=3, gaia_veto_gmag_min=9, gaia_veto_gmag_max=20,
    gaia_excessnoise_sig_max=999, ps1_sgveto_rad=0.0, ps1_sgveto_th=1.0, ps1_confusion_rad=0.0,
    ps1_confusion_sg_tol=0.0, logger=logger,
)  # fmt: skip
loose.post_init()
n_complete = sum(loose._alert_has_keys(alert.datapoints[0]) for alert in alerts)
shaped = [ZiDataPointShaperBase().process(alert.datapoints, alert.stock) for alert in alerts]
identities = {point["id"] for points in shaped for point in points}
tell(packets, n_complete=n_complete, n_shaped=sum(map(len, shaped)), n_identities=len(identities))

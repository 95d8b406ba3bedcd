"""otpmail.v1.AddressService: decodes requests, and encodes what `otp.addresses` answers."""

from otpmail.api import encode
from otpmail.api.calls import Context, call_from
from otpmail.errors import InvalidArgument
from otpmail.otp.addresses import AddressService, Outcome
from otpmail.v1 import address_pb2, address_pb2_grpc

_OUTCOMES: dict[int, Outcome] = {
    address_pb2.ReportDeliveryRequest.Outcome.Value(f"OUTCOME_{outcome.name}"): outcome for outcome in Outcome
}


class AddressServicer(address_pb2_grpc.AddressServiceServicer):
    """Serves `otp.addresses.AddressService`."""

    def __init__(self, addresses: AddressService) -> None:
        self._addresses = addresses

    async def GetAddress(
        self, request: address_pb2.GetAddressRequest, context: Context
    ) -> address_pb2.GetAddressResponse:
        """Return what is known of an address."""
        call, response = call_from(context), address_pb2.GetAddressResponse()
        suppression = await self._addresses.suppression(call, request.email)
        if suppression is not None:
            encode.fill_suppression(response.suppression, suppression)
        for budget in await self._addresses.budgets(call, request.email):
            message = response.budgets.add(name=budget.setting, spent=budget.spent, limit=budget.limit)
            encode.fill_timestamp(message.reset_time, budget.reset_time)
        return response

    async def ReleaseAddress(
        self, request: address_pb2.ReleaseAddressRequest, context: Context
    ) -> address_pb2.ReleaseAddressResponse:
        """Lift the suppression or the budgets of an address."""
        await self._addresses.release(
            call_from(context), request.email, suppression=request.suppression, budgets=request.budgets
        )
        return address_pb2.ReleaseAddressResponse()

    async def ForgetAddress(
        self, request: address_pb2.ForgetAddressRequest, context: Context
    ) -> address_pb2.ForgetAddressResponse:
        """Erase what is kept of an address."""
        await self._addresses.forget(call_from(context), request.email)
        return address_pb2.ForgetAddressResponse()

    async def ReportDelivery(
        self, request: address_pb2.ReportDeliveryRequest, context: Context
    ) -> address_pb2.ReportDeliveryResponse:
        """Take note of what a caller has learned of a delivery."""
        outcome = _OUTCOMES.get(request.outcome)
        if outcome is None:
            raise InvalidArgument("outcome", "must be DELIVERED, BOUNCED or COMPLAINED")
        await self._addresses.report(
            call_from(context), request.email, outcome, mail_id=request.mail_id, detail=request.detail
        )
        return address_pb2.ReportDeliveryResponse()
